"""Metrics on a real PostgreSQL: what is counted and when, what the database knows, and the alert of a lost listener."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, text, update

from app import calls, metrics, metrics_facts, metrics_server
from app.db import Database
from app.engine_models import ProviderRow, Task
from app.metrics_facts import Facts
from app.metrics_server import MetricsServer
from app.provider_directory import ProviderDirectory
from app.providers import ENVIRONMENT
from app.telephony.base import CallEvent, CallRef, CallStatus, Snapshot
from tests.integration.call_runner import MakeCallRunner, ScriptedProvider, Streaming, until
from tests.integration.isolated_worker import IsolatedWorker
from tests.promtool import RULES, promtool
from worker.listener import Listener

SCRAPED_EVERY = "15s"


class RolledBack(Exception):
    pass


def counted(name: str, **labels: str) -> float:
    """The value in this process."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def served(db: Database) -> AsyncIterator[str]:
    """The URL of a server of metrics."""
    server = MetricsServer("127.0.0.1", 0, Facts(db))
    await server.start()
    try:
        yield f"http://127.0.0.1:{server.served_port}/metrics"
    finally:
        await server.aclose()


async def scrape(url: str) -> dict[str, float]:
    """The facts, each by its name and labels as PromQL writes them."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(url)
    assert answer.status_code == 200
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ", ".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@pytest.fixture(autouse=True)
def facts_are_never_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_facts, "_FRESH_SECONDS", -1.0)


# What a process counts


async def test_an_end_counts_when_it_is_committed_and_by_user_only_if_that_is_asked_for(
    make_runner: MakeCallRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_by_user", True)
    runner = await make_runner()
    call = await runner.call()
    labels = {"provider": ENVIRONMENT, "status": "canceled", "user": call.user_id}
    event = CallEvent("ended", CallStatus.CANCELED, datetime.now(UTC))
    assert counted("ringback_calls_created_total", provider=ENVIRONMENT, user=call.user_id) == 1
    with pytest.raises(RolledBack):
        async with runner.context.db.transaction() as session:
            await calls.apply_events(session, runner.call_id, [event], max_call_seconds=60)
            raise RolledBack
    assert counted("ringback_calls_ended_total", **labels) == 0
    async with runner.context.db.transaction() as session:
        await calls.apply_events(session, runner.call_id, [event], max_call_seconds=60)
    assert counted("ringback_calls_ended_total", **labels) == 1
    assert "@" not in call.user_id

    monkeypatch.setattr(metrics, "_by_user", False)
    other = {**labels, "user": ""}
    before, second = counted("ringback_calls_ended_total", **other), await make_runner()
    async with second.context.db.transaction() as session:
        await calls.apply_events(session, second.call_id, [event], max_call_seconds=60)
    assert counted("ringback_calls_ended_total", **other) == before + 1


@dataclass
class Thief(ScriptedProvider):
    """While it is asked about a call, another worker takes the task."""

    db: Database | None = None

    async def fetch(self, ref: CallRef) -> Snapshot | None:
        assert self.db is not None
        async with self.db.transaction() as session:
            await session.execute(update(Task).where(Task.call_id == ref.call_id).values(lease_token=uuid4()))
        return None


async def test_each_attempt_at_a_task_counts_by_what_came_of_it(make_runner: MakeCallRunner) -> None:
    def results(kind: str) -> list[float]:
        names = ("done", "retried", "given_up", "failed", "lease_lost")
        return [counted("ringback_task_attempts_total", kind=kind, result=name) for name in names]

    def requests(result: str) -> float:
        name = "ringback_provider_request_seconds_count"
        return counted(name, provider=ENVIRONMENT, request="place", result=result)

    runner = await make_runner(ScriptedProvider(placing=RuntimeError("a bug in the adapter")))
    before, failed = results("dial"), requests("error")
    await runner.run("dial")  # it is finished before its request leaves, so the failure is not retried
    assert [now - then for now, then in zip(results("dial"), before, strict=True)] == [0, 0, 0, 1, 0]
    assert requests("error") == failed + 1

    runner.use(ScriptedProvider(snapshot=RuntimeError("another bug")))
    before = results("track")
    await runner.run_until_given_up("track")
    assert [now - then for now, then in zip(results("track"), before, strict=True)] == [0, 7, 1, 0, 0]

    runner = await make_runner(Thief(db=None))
    runner.provider.db = runner.context.db
    await runner.run("dial")
    before = results("track")
    await runner.run("track")
    assert [now - then for now, then in zip(results("track"), before, strict=True)] == [0, 0, 0, 0, 1]


async def test_a_port_that_is_taken_stops_nothing_and_is_had_later(
    isolated: IsolatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "_RETRY_SECONDS", 0.05)
    async with served(isolated.context.db) as url:
        port = int(url.split(":")[2].partition("/")[0])
        second = MetricsServer("127.0.0.1", port, None)
        await second.start()
        assert second.served_port is None
        assert "ringback_database_up 1.0" in (await asyncio.to_thread(httpx.get, url)).text

    async def is_back() -> bool:
        return second.served_port == port

    try:
        await until(is_back)
        assert "ringback_database_up" not in (await asyncio.to_thread(httpx.get, url)).text
    finally:
        await second.aclose()


# What the database knows


async def test_what_is_live_and_what_waits_is_read_from_the_database(isolated: IsolatedWorker) -> None:
    db = isolated.context.db
    async with served(db) as url:
        before = await scrape(url)
        first, *_ = await isolated.place(3)
        async with db.transaction() as session:
            await session.execute(update(Task).values(due_at=func.now() - timedelta(seconds=50)))
            claimed = update(Task).where(Task.call_id == first)
            await session.execute(claimed.values(lease_until=func.now() + timedelta(seconds=60)))
        now = await scrape(url)
        live = 'ringback_calls_live{provider="environment", status="queued"}'
        assert now[live] - before.get(live, 0) == 3
        of_dials = 'kind="dial", waits_for="worker"'
        assert now[f"ringback_tasks_waiting{{{of_dials}}}"] == 2
        assert 50 <= now[f"ringback_tasks_oldest_seconds{{{of_dials}}}"] < 50 + 60
        assert now['ringback_tasks_claimed{kind="dial"}'] == 1
        assert now['ringback_tasks_waiting{kind="track", waits_for="worker"}'] == 0
        assert now['ringback_workers{queue="calls"}'] == 0
        assert now["ringback_database_up{}"] == 1

        # A worker that lost its lease leaves the task waiting since then. What waits at a gate waits for no worker.
        async with db.transaction() as session:
            await session.execute(claimed.values(lease_until=func.now() - timedelta(seconds=5)))
        assert (await scrape(url))[f"ringback_tasks_waiting{{{of_dials}}}"] == 3
        gate = update(ProviderRow).where(ProviderRow.name == ENVIRONMENT)
        async with db.transaction() as session:
            await session.execute(gate.values(calls_at_once=1))
        try:
            now = await scrape(url)
        finally:
            async with db.transaction() as session:
                await session.execute(gate.values(calls_at_once=None))
        assert now[f"ringback_tasks_waiting{{{of_dials}}}"] == 0
        assert now['ringback_tasks_waiting{kind="dial", waits_for="gate"}'] == 3


async def test_without_its_database_a_process_serves_what_it_counts() -> None:
    away = Database("postgresql+asyncpg://nobody@127.0.0.1:1/x", pool_size=1)
    async with served(away) as url:
        found = await scrape(url)
    await away.dispose()
    assert found["ringback_database_up{}"] == 0
    assert not [name for name in found if name.startswith(("ringback_tasks_waiting", "ringback_workers"))]
    assert [name for name in found if name.startswith("process_cpu_seconds_total")]


_ENDED = text("""
INSERT INTO calls (id, user_id, customer_number, agent_number, status, ended_at)
SELECT 'call_' || lpad(n::text, 16, '0'), :user_id, '919999999999', '918888888888', 'completed', now()
FROM generate_series(1, 20000) n
""")


async def test_ended_calls_cost_a_scrape_nothing(isolated: IsolatedWorker) -> None:
    with pytest.raises(RolledBack):
        async with isolated.context.db.transaction() as session:
            await session.execute(_ENDED, {"user_id": isolated.user.id})
            await session.execute(text("ANALYZE calls"))
            explained = await session.execute(text(f"EXPLAIN {metrics_facts.READ}"), metrics_facts.VALUES)
            plan = "\n".join(explained.scalars())
            raise RolledBack
    assert "Seq Scan on calls" not in plan, plan
    assert "ix_calls_live" in plan, plan


# An alert


async def test_the_alert_of_a_provider_that_no_worker_hears_fires(isolated: IsolatedWorker, tmp_path: Path) -> None:
    """A calls worker hears its provider, then its stream is cut and does not come back. Prometheus's own promtool
    judges what was scraped before and after."""
    db, provider = isolated.context.db, Streaming()
    directory = ProviderDirectory(db, isolated.settings, environment=provider)
    listener = Listener(replace(isolated.context, providers=directory), ENVIRONMENT, uuid4())
    name = 'ringback_provider_connected{provider="environment"}'
    disconnects = counted("ringback_listener_disconnects_total", provider=ENVIRONMENT)
    async with served(db) as url:

        async def is_heard(wanted: float) -> bool:
            return (await scrape(url))[name] == wanted

        assert await is_heard(0)
        running = asyncio.create_task(listener.run())
        try:
            await until(lambda: is_heard(1))
            heard = (await scrape(url))[name]
            provider.is_away = True
            provider.streams[0].put_nowait(None)
            await until(lambda: is_heard(0))
            lost = (await scrape(url))[name]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await listener.release()
    assert counted("ringback_listener_disconnects_total", provider=ENVIRONMENT) > disconnects
    fires = '{alertname="RingbackProviderNotHeard", alertstate="firing", provider="environment", severity="critical"}'
    await check_alerts(
        tmp_path,
        values=f"{name}: {heard}x8 {lost}x8",
        expected={"2m": [], "4m": [{"labels": f"ALERTS{fires}", "value": 1}]},
    )


async def check_alerts(folder: Path, *, values: str, expected: dict[str, list[Any]]) -> None:
    """Let promtool evaluate the rules on a series, which begins with its name, and compare the critical alert."""
    series, _, numbers = values.partition(": ")
    asked = 'ALERTS{alertname="RingbackProviderNotHeard", alertstate="firing"}'
    tests = [{"expr": asked, "eval_time": at, "exp_samples": samples} for at, samples in expected.items()]
    of_series = {"interval": SCRAPED_EVERY, "input_series": [{"series": series, "values": numbers}]}
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": SCRAPED_EVERY,
        "tests": [{**of_series, "promql_expr_test": tests}],
    }
    file = folder / "scraped.yml"
    file.write_text(yaml.safe_dump(document))
    done = await asyncio.to_thread(promtool, "test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
