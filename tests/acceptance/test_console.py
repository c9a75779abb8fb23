"""The console in a real browser: a walk through it, parts without scripts or a mouse, and what strangers wrote."""

import csv
import re
from pathlib import Path

import httpx
from aiohttp import web
from playwright.async_api import Locator, Page, expect
from sqlalchemy import update

from app import calls, dids
from app.models import Did, TranscriptRow, User
from app.numbers import PhoneNumber
from app.telephony.base import CallStatus, Leg
from tests.acceptance.console_site import AGENT, CUSTOMER, OPERATOR, USER, Site, get_user

_DID = "918047170001"


async def place(page: Page, customer: str = CUSTOMER) -> str:
    """Place a call by the form; returns its id."""
    await page.goto("/calls/new")
    await page.get_by_label("Agent, rung first").fill(AGENT)
    await page.get_by_label("Customer", exact=True).fill(customer)
    await page.get_by_role("button", name="Call", exact=True).click()
    await page.wait_for_url(re.compile("/calls/call_"))
    return page.url.rpartition("/")[2]


def status_of(page: Page) -> Locator:
    return page.locator("#call-status .st")


async def keep(page: Page) -> None:
    """Leave a mark that a page loses when it is loaded again."""
    await page.evaluate("window.wasLoadedOnce = true")


async def expect_kept(page: Page) -> None:
    assert await page.evaluate("window.wasLoadedOnce === true")


async def time_of(page: Page) -> float:
    return float(await page.evaluate("document.querySelector('audio').currentTime"))


async def slow_down(page: Page) -> None:
    """Play the recording so slowly that a busy machine sees each turn of it. This is a browser's slowest."""
    await page.evaluate("document.querySelector('audio').playbackRate = 0.0625")


async def test_a_call_from_its_order_to_its_words(console: Site) -> None:
    async with console.tab(OPERATOR) as (page, tab):
        call_id = await a_call_is_followed(console, page, await tab.context.new_page())
        await its_recording_is_played(page)
        await it_is_found(page, call_id)
        await a_live_call_is_canceled(console, page)


async def a_call_is_followed(console: Site, page: Page, tab: Page) -> str:
    """On its own page, and in a list in another tab. Neither is loaded again."""
    console.speech.may_answer.clear()
    first = await console.order(OPERATOR)  # an empty list is loaded again when its first call comes
    await tab.goto("/calls")
    await expect(tab.locator(".livedot").first).to_be_visible()
    await keep(tab)
    with console.dialing_stopped():
        call_id = await place(page)
        row = tab.locator(f"#{call_id}")
        await expect(page.locator(".livedot").first).to_be_visible()
        await keep(page)
        await expect_step(page, row, "Queued", "Queued")
    await console.wait_for_status(call_id, CallStatus.DIALING)
    await console.happen(call_id, "agent:ringing", CallStatus.RINGING, Leg.AGENT)
    await expect_step(page, row, "Ringing agent", "Agent's telephone rings")
    await console.happen(call_id, "agent:answered", CallStatus.RINGING, Leg.AGENT)
    await console.happen(call_id, "customer:ringing", CallStatus.RINGING, Leg.CUSTOMER)
    await expect_step(page, row, "Ringing customer", "Customer's telephone rings")
    await console.happen(call_id, "answered", CallStatus.IN_PROGRESS, Leg.CUSTOMER)
    await expect_step(page, row, "Talking", "Talking")
    for clock in (page.locator(".clock"), row.locator(".running")):
        shown = await clock.inner_text()
        await expect(clock).not_to_have_text(shown)
        await expect(clock).to_have_text(re.compile(r"^\d+:\d\d$"))
    await expect(page.get_by_role("button", name="Hang up")).to_be_visible()
    await console.end_answered(call_id)
    await expect_step(page, row, "Transcribing", "Transcribing")
    await expect(page.locator("call-player .pp")).to_be_visible()
    console.speech.may_answer.set()
    await expect(page.locator(".turn").nth(1)).to_be_visible()
    await expect(status_of(page)).to_have_text("Answered")
    await expect(row.locator(".st")).to_have_text("Answered")
    await expect(row.locator(".oc")).to_be_visible()
    await expect(page.locator("#call-progress .steps")).to_have_count(0)
    await expect_kept(page)
    await expect_kept(tab)
    await console.happen(first, "ended", CallStatus.BUSY, Leg.CUSTOMER, hangup_cause="user_busy")
    await tab.close()
    return call_id


async def expect_step(page: Page, row: Locator, word: str, step: str) -> None:
    await expect(status_of(page)).to_have_text(word)
    await expect(page.locator(".steps [aria-current=step]")).to_have_text(step)
    await expect(row.locator(".st")).to_have_text(word)


async def its_recording_is_played(page: Page) -> None:
    turns = page.locator(".turn")
    starts = [float(await turn.get_attribute("data-start") or "") for turn in await turns.all()]
    await slow_down(page)
    await turns.nth(1).locator("button").click()
    await page.wait_for_function("start => document.querySelector('audio').currentTime > start", arg=starts[1])
    await expect(turns.nth(1).locator("button")).to_have_attribute("aria-current", "true")
    await expect(page.locator(".turn [aria-current]")).to_have_count(1)
    await expect(page.get_by_role("button", name="Pause")).to_be_visible()
    assert not await page.evaluate("document.querySelector('audio').muted")
    await page.get_by_role("button", name="Customer", exact=True).click()
    await expect(page.get_by_role("button", name="Customer", exact=True)).to_have_attribute("aria-pressed", "true")
    at = await time_of(page)
    await page.wait_for_function("at => document.querySelector('audio').currentTime > at", arg=at)
    await page.get_by_role("button", name="Speed 1×").click()
    assert await page.evaluate("document.querySelector('audio').playbackRate") == 1.25
    await slow_down(page)

    await page.locator("h1").click()  # nothing that takes keys has the focus
    await page.keyboard.press("Space")
    await page.wait_for_function("() => document.querySelector('audio').paused")
    while (at := await time_of(page)) not in (0, starts[0]):  # it may have played a while
        await page.keyboard.press("k")
        assert await time_of(page) < at
    await page.keyboard.press("ArrowRight")
    assert await time_of(page) == at + 5
    await page.keyboard.press("ArrowLeft")
    assert await time_of(page) == at
    await page.keyboard.press("j")
    following = next(start for start in starts if start > at + 0.1)
    assert await time_of(page) == following
    await page.keyboard.press("Space")
    await page.wait_for_function("at => document.querySelector('audio').currentTime > at", arg=following)
    slider = page.get_by_role("slider", name="Position in the recording")
    await expect(slider).to_have_attribute("aria-valuetext", re.compile(r"^0:\d\d of 0:\d\d, (Agent|Customer)$"))
    await page.get_by_role("button", name="Pause").click()


async def it_is_found(page: Page, call_id: str) -> None:
    """By a part of its number, by a word that was said, and in the exported file."""
    said = await page.locator(".turn.customer .txt").first.inner_text()
    word = max(re.findall(r"[A-Za-z]+", said), key=len)
    search = page.get_by_role("searchbox")
    await page.goto("/calls")
    await page.keyboard.press("/")
    await expect(search).to_be_focused()
    for query, fits in (("20012 345", True), ("20012 346", False), (word, True), (f"{word} xylophone", False)):
        await search.fill(query)
        async with page.expect_navigation():
            await page.keyboard.press("Enter")
        await expect(search).to_have_value(query)
        await expect(page.locator(f"#{call_id}")).to_have_count(int(fits))
    await page.get_by_role("link", name="Show all calls").click()
    await page.get_by_role("link", name="Not answered").click()
    await expect(page.locator(f"#{call_id}")).to_have_count(0)
    await page.locator(".chip", has_text=re.compile("^Answered$")).click()
    await expect(page.locator(f"#{call_id}")).to_be_visible()
    async with page.expect_download() as downloading:
        await page.get_by_role("link", name="Export these calls as CSV").click()
    text = Path(await (await downloading.value).path()).read_text("utf-8-sig")
    (line,) = csv.DictReader(text.splitlines())
    assert (line["call_id"], line["status"]) == (call_id, "Answered")
    assert CUSTOMER not in text


async def a_live_call_is_canceled(console: Site, page: Page) -> None:
    call_id = await place(page)
    await console.wait_for_status(call_id, CallStatus.DIALING)
    await expect(status_of(page)).to_have_text("Ringing agent")
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("status")).to_have_text("The call is canceled.")
    await expect(status_of(page)).to_have_text("Canceled")


async def test_a_callback_fails_and_is_replayed(console: Site) -> None:
    answers = [
        # Long enough, so that the next attempt is the one that this test asks for.
        web.Response(status=500, text="the disk is full", headers={"Retry-After": "3600"}),
        web.Response(status=410, text="gone"),
    ]

    async def answer(request: web.Request, number: int) -> web.StreamResponse:
        return answers.pop(0) if answers else web.Response(text="thank you")

    console.receiver.answer = answer
    console.receiver.received.clear()
    call_id = await console.order(USER, callback=True)
    await console.wait_for_status(call_id, CallStatus.DIALING)
    await console.happen(call_id, "ended", CallStatus.BUSY, Leg.CUSTOMER, hangup_cause="user_busy")
    async with console.tab(USER) as (page, _):
        await page.goto(f"/calls/{call_id}")
        callback = page.locator("#call-about .cb").first
        await expect(callback).to_contain_text("Waiting")
        await expect(callback.locator("summary")).to_have_text("1 attempt")
        await callback.locator("summary").click()
        await expect(callback).to_contain_text("500 the disk is full")
        await callback.get_by_role("button", name="Send now").click()
        await expect(callback).to_contain_text("Failed")  # a receiver that is gone is not asked again
        await page.goto("/deliveries?status=failed")
        row = page.locator(".deliv tbody tr", has_text=call_id).filter(has_text="410 gone")
        await row.locator("summary").click()
        await expect(row.locator("li")).to_have_count(2)
        await row.get_by_role("button", name="Replay").click()
        await expect(page.get_by_role("status")).to_contain_text("sent again")
        await page.goto(f"/calls/{call_id}")
        await expect(callback).to_contain_text("Delivered")
        await expect(callback.locator("summary")).to_have_text("3 attempts")
    ids = {received.id for received in console.receiver.received}
    assert len(ids) == 1, "a replay is the same message"


async def test_numbers_account_and_installation(console: Site) -> None:
    user = await get_user(console, OPERATOR)
    async with console.db.transaction() as session:
        owner = await session.get_one(User, user.id)
        await dids.set_pool(session, owner, 10)
        await dids.add(session, PhoneNumber(_DID), owner=owner, max_channels=8)
    others = await console.order(USER)
    async with console.tab() as (page, tab):  # a login of its own, because it ends
        await page.goto("/numbers")
        await console.fill_login(page, OPERATOR)
        await page.wait_for_url("**/numbers")
        await page.get_by_label("Channels of +91 80471 70001").fill("4")
        await page.get_by_role("button", name="Save channels").click()
        await expect(page.get_by_role("status")).to_contain_text("divided")
        await expect(page.locator(".use")).to_have_text("0 of 4")
        await page.get_by_label("Name of +91 80471 70001").fill("Sales")
        await page.locator(".rename").get_by_role("button", name="Save").click()
        await expect(page.get_by_label("Name of +91 80471 70001")).to_have_value("Sales")
        await page.goto("/calls/new")
        await expect(page.get_by_label("Number shown to both")).to_contain_text("Sales +91 80471 70001")

        await page.locator(".me a").click()
        for theme in ("Dark", "Light", "As the system"):
            await page.get_by_role("radio", name=theme).check()
            await page.get_by_role("button", name="Save").click()
            await expect(page.locator("html[data-theme]")).to_have_count(int(theme != "As the system"))
            await expect(page.get_by_role("radio", name=theme)).to_be_checked()

        await page.get_by_role("link", name="Installation").click()
        await expect(page.locator(".note.said")).to_contain_text("Everything that a call needs")
        await page.locator("#provider-environment").get_by_role("button", name="Check").click()
        await expect(page.locator("#provider-environment .finds li.ok")).to_have_count(2)
        await page.get_by_role("link", name="Calls", exact=True).click()
        await expect(page.locator(f"#{others}")).to_have_count(0)
        await page.get_by_role("link", name="All users").click()
        await page.locator(f"#{others} a").click()
        await expect(page.get_by_text(f"This call belongs to {USER}.")).to_be_visible()

        await page.get_by_role("button", name="Sign out").click()
        await page.wait_for_url("**/login")
        await page.go_back()
        await page.wait_for_url("**/login?next=**")
        await expect(page.get_by_text("belongs to")).to_have_count(0)
        for cookie in await tab.context.cookies():
            assert cookie["name"] != "ringback"
    assert httpx.get(f"{console.instance.base_url}/calls").status_code == 303


async def test_without_scripts(console: Site) -> None:
    call_id = await an_answered_call(console)
    async with console.tab(java_script_enabled=False) as (page, _):
        await page.goto(f"/calls/{call_id}")
        await console.fill_login(page, USER)
        await expect(page.locator("h1")).to_be_visible()
        assert await page.locator(".turn .txt").count() > 2
        await expect(page.locator("audio[controls]")).to_be_visible()
        await page.get_by_role("link", name="Calls").last.click()
        await expect(page.locator(f"#{call_id}")).to_contain_text("Answered")
        await page.get_by_role("searchbox").fill("20012345")
        await page.get_by_role("searchbox").press("Enter")
        await expect(page.locator(f"#{call_id}")).to_be_visible()
        placed = await place(page)
        await expect(page.locator("code", has_text=placed)).to_be_visible()
        await page.get_by_role("button", name="Cancel").click()
        await expect(page.get_by_role("status")).to_have_text("The call is canceled.")
        user = await get_user(console, USER)
        async with console.db.transaction() as session:
            owner = await session.get_one(User, user.id)
            await dids.set_pool(session, owner, 10)
            await dids.add(session, PhoneNumber("918047180001"), owner=owner, max_channels=8)
        await page.goto("/numbers")
        await page.get_by_label("Channels of +91 80471 80001").fill("3")
        await page.get_by_role("button", name="Save channels").click()
        await expect(page.locator(".use")).to_have_text("0 of 3")


async def an_answered_call(console: Site) -> str:
    """A call of the user, with its recording and its words."""
    call_id = await console.order(USER)
    await console.wait_for_status(call_id, CallStatus.DIALING)
    await console.happen(call_id, "answered", CallStatus.IN_PROGRESS, Leg.CUSTOMER)
    await console.end_answered(call_id)
    await console.wait_for_transcript(call_id)
    return call_id


async def test_by_keyboard_alone(console: Site) -> None:
    call_id = await an_answered_call(console)
    async with console.tab() as (page, _):
        await page.goto("/login")
        await expect(page.get_by_label("E-mail")).to_be_focused()
        await page.keyboard.type(USER)
        await page.keyboard.press("Tab")
        await page.keyboard.type(console.passwords[USER])
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/calls")
        await page.keyboard.press("Tab")
        await expect(page.locator(".skip")).to_be_focused()
        await page.keyboard.press("Enter")
        await tab_to(page, page.locator(f"#{call_id} a"))
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/{call_id}")
        await slow_down(page)
        await tab_to(page, page.get_by_role("button", name="Play"))
        await page.keyboard.press("Space")
        await page.wait_for_function("() => document.querySelector('audio').currentTime > 0")
        await page.keyboard.press("Space")
        await page.wait_for_function("() => document.querySelector('audio').paused")
        await tab_to(page, page.locator(".turn button").nth(1))
        await page.keyboard.press("Enter")
        await expect(page.locator(".turn button").nth(1)).to_have_attribute("aria-current", "true")
        await page.keyboard.press("c")
        await page.wait_for_url("**/calls/new")
        await tab_to(page, page.get_by_label("Agent, rung first"))
        await page.keyboard.type(AGENT)
        await page.keyboard.press("Tab")
        await page.keyboard.type(CUSTOMER)
        await page.keyboard.press("Enter")
        await page.wait_for_url(re.compile("/calls/call_"))
        await tab_to(page, page.get_by_role("button", name="Cancel"))
        await page.keyboard.press("Enter")
        await expect(status_of(page)).to_have_text("Canceled")


async def tab_to(page: Page, wanted: Locator) -> None:
    """Press Tab until this has the focus, and shows it."""
    await expect(wanted).to_be_visible()
    for _ in range(100):
        if await wanted.evaluate("wanted => wanted === document.activeElement"):
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {wanted}")


_SCRIPT = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)><svg onload=alert(3)>"


async def test_texts_of_strangers_run_nothing(console: Site) -> None:
    async def answer(request: web.Request, number: int) -> web.StreamResponse:
        return web.Response(status=500, text=_SCRIPT, content_type="text/html")

    console.receiver.answer = answer
    call_id = await console.order(USER, callback=True)
    await console.wait_for_status(call_id, CallStatus.DIALING)
    user = await get_user(console, USER)
    async with console.tab(USER) as (page, _):
        await page.goto("/calls")
        await expect(page.locator(".livedot").first).to_be_visible()
        async with console.db.transaction() as session:
            did = await dids.add(session, PhoneNumber("918047189999"), owner=user, max_channels=1)
            turns = [{"role": "customer", "content": _SCRIPT, "start": 0.0, "end": 1.0}]
            written = update(TranscriptRow).where(TranscriptRow.call_id == call_id)
            words = {"history": turns, "summary": _SCRIPT, "outcome": _SCRIPT, "engine": _SCRIPT, "status": "ready"}
            await session.execute(written.values(**words))
            await session.execute(update(Did).where(Did.id == did.id).values(label=_SCRIPT))
            await calls.add_note(session, call_id, _SCRIPT)
        failed = {"hangup_cause": _SCRIPT, "detail": _SCRIPT}
        await console.happen(call_id, "ended", CallStatus.FAILED, Leg.CUSTOMER, **failed)
        row = page.locator(f"#{call_id}")
        await expect(row).to_contain_text(_SCRIPT)  # it came as a live change, which a script puts into the page
        await page.goto(f"/calls/{call_id}")
        await expect(page.locator(".turn .txt")).to_have_text(_SCRIPT)
        callback = page.locator("#call-about .cb").first
        await callback.locator("summary").click()
        await expect(callback.locator("li")).to_contain_text(_SCRIPT)
        await page.goto("/deliveries")
        await expect(page.locator(".an", has_text=_SCRIPT).first).to_be_visible()
        await page.goto("/numbers")
        await expect(page.get_by_label("Name of +91 80471 89999")).to_have_value(_SCRIPT)
        await page.goto("/calls/new")
        await expect(page.get_by_label("Number shown to both")).to_contain_text(_SCRIPT)
        for asked in ("q", "outcome", "period", "status", "before"):
            await page.goto(f"/calls?{httpx.QueryParams({asked: _SCRIPT})}")
            await expect(page.get_by_role("searchbox")).to_have_value(_SCRIPT if asked == "q" else "")
        await page.goto(f"/calls/new?{httpx.QueryParams({'customer': _SCRIPT})}")
        await expect(page.get_by_label("Customer", exact=True)).to_have_value(_SCRIPT[:30])
        assert await page.locator("img, svg[onload], main script").count() == 0


async def test_the_policy_stops_what_a_page_would_let_through(console: Site) -> None:
    """So the other tests would see it."""
    async with console.tab(USER) as (page, tab):
        await page.goto("/account")
        await page.evaluate("document.querySelector('main').innerHTML += '<img src=x onerror=alert(1)>'")
        await page.wait_for_function("() => document.querySelector('main img').complete")
        await page.evaluate("fetch('http://other.example/').catch(() => 0)")
        assert any("script-src" in problem for problem in tab.unexpected)
        assert any("connect-src" in problem for problem in tab.unexpected)
        tab.expected = [".*"]
