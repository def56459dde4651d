"""The point of this test is to ensure that the program of docs/howto/asyncio.rst does what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.documents import named_blocks
from tests.support.program import run_program
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]
BLOCKS = named_blocks((ROOT / "docs" / "howto" / "asyncio.rst").read_text(encoding="utf-8"))


@pytest.fixture
def page(tmp_path):
    """A directory with the page's files."""
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_program(page):
    """It prints what the page shows, and the client has nothing to complain of."""
    ran = run_program("app.py", directory=page)
    assert (ran.stdout, ran.stderr) == (BLOCKS["app.out"], "")


def test_a_cancelled_coroutine_ends_the_work(page):
    """The worker is interrupted: its cleanup runs long before the work would have ended."""
    (page / "jobs.py").write_text(
        "import time\n\ndef wait(seconds):\n    try:\n        time.sleep(seconds)\n"
        "    finally:\n        open('interrupted', 'w').close()\n\ndef ready():\n    pass\n"
    )
    (page / "late.py").write_text(
        "import asyncio\nfrom workers import Workers\n\n\nasync def main():\n"
        "    async with Workers('spawn:jobs') as workers:\n"
        "        await workers.call('ready')\n"
        "        try:\n            await asyncio.wait_for(workers.call('wait', 3600), 0.5)\n"
        "        except asyncio.TimeoutError:\n            print('late')\n\n\n"
        "if __name__ == '__main__':\n    asyncio.run(main())\n"
    )
    ran = run_program("late.py", directory=page)
    assert (ran.stdout, ran.stderr) == ("late\n", "")
    wait_until((page / "interrupted").exists)


def test_why_not_to_thread(page):
    """What the page advises against fails as it says."""
    ran = run_program(
        """
        import asyncio
        import threading
        import gtask

        async def main():
            client, called, over = gtask.Client("spawn:jobs"), threading.Event(), threading.Event()

            def first():
                value = client.call("count", 10)
                called.set()
                over.wait()  # so that another thread is taken for the next call
                return value

            one = asyncio.create_task(asyncio.to_thread(first))
            await asyncio.to_thread(called.wait)
            try:
                await asyncio.to_thread(client.call, "count", 10)
            except gtask.WrongThread as error:
                print(type(error).__name__)
            over.set()
            print(await one)

        if __name__ == "__main__":
            asyncio.run(main())
        """,
        directory=page,
        options=(),
    )
    assert ran.stdout == "WrongThread\n24\n"
