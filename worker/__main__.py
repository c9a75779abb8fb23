"""`python -m worker calls`, `callbacks` or `transcripts`: one worker process."""

import asyncio
import os
import sys

from app import lifeline, logs
from app.models import Queue
from app.settings import SettingsError, get_settings
from worker import main


def run() -> None:
    lifeline.hold()
    queues = [queue.value for queue in Queue]
    if len(sys.argv) != 2 or sys.argv[1] not in queues:
        sys.exit(f"usage: python -m worker {'|'.join(queues)}")
    try:
        settings = get_settings()
        logs.configure(settings.log_format)
        asyncio.run(main.run(settings, Queue(sys.argv[1])))
    except SettingsError as error:
        sys.exit(str(error))
    # A recognition that outlived the grace runs in a thread that cannot be cancelled, and nobody waits for it.
    sys.stdout.flush()
    os._exit(0)


run()
