"""`python -m worker calls`, `callbacks` or `transcripts`: one worker process."""

import os
import signal
import sys
from types import FrameType

_NICENESS = 10


def run() -> None:
    # First of all, because the imports below take a second. A worker that has not started has nothing to finish.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _end_at_once)

    import asyncio

    from app import logs, parent_watch, tracing
    from app.engine_models import Queue
    from app.options import SettingsError
    from app.settings import get_settings
    from worker import main

    async def work() -> None:
        code = await main.run(settings, Queue(sys.argv[1]))
        # Exit from inside the loop. At its end the loop waits for threads, and a recognition in a thread cannot be
        # cancelled.
        sys.stdout.flush()
        os._exit(code)

    parent_watch.start()
    queues = [queue.value for queue in Queue]
    if len(sys.argv) != 2 or sys.argv[1] not in queues:
        sys.exit(f"usage: python -m worker {'|'.join(queues)}")
    try:
        settings = get_settings()
        logs.configure(settings.log_format, tracing.add_trace_id)
        if sys.argv[1] == Queue.TRANSCRIPTS:
            os.nice(_NICENESS)  # people wait for their telephones, and recognition takes what CPU is left
        asyncio.run(work())
    except SettingsError as error:
        sys.exit(str(error))


def _end_at_once(signum: int, frame: FrameType | None) -> None:
    os._exit(0)


run()
