"""At most once: whatever dies, no call is executed a second time.

Each call has a token of its own, which its worker appends to a file before and after it does its work. Meanwhile
workers are killed at random, callers are killed, and calls time out.
"""

import os
import random
import signal
from collections import Counter

import gevent
import pytest

import gtask
from tests.support.process import children
from tests.support.waiting import wait_until

SOURCE = """
    _log = os.open(os.path.join(DIR, "tokens"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def work(token, seconds):
        os.write(_log, b"%d begun\\n" % token)
        time.sleep(seconds)
        os.write(_log, b"%d done\\n" % token)
        return token
"""

CALLERS, CALLS, WORKERS = 8, 50, 4


@pytest.mark.parametrize("seed", range(2))
def test_no_token_is_there_twice(faulty, connect, tmp_path, seed):
    """Every call has one outcome, its own; the values are of calls that were done, and no token is there twice."""
    chance = random.Random(seed)
    server = faulty(more=SOURCE)
    client = connect(server, max_workers=WORKERS, timeout=60)
    client.call("pid")
    outcomes = {}

    def values():
        return sum(isinstance(outcome, int) for outcome in outcomes.values())

    def caller(number):
        for call in range(CALLS):
            token = number * CALLS + call
            with client.checkout(timeout=0.002 if chance.random() < 0.02 else 60) as worker:
                try:
                    if chance.random() < 0.5:
                        outcomes[token] = worker.work(token, chance.random() * 0.004)
                    else:
                        outcomes[token] = worker.work.submit(token, chance.random() * 0.004).get()
                except (gtask.WorkerDied, gtask.CallTimeout, gtask.AcquireTimeout) as error:
                    outcomes[token] = error
                except gevent.GreenletExit as exit:
                    outcomes[token] = exit

    def killer():
        while True:
            # So however slow the machine forks, most calls are served.
            enough = values() + chance.randrange(2, 6)
            wait_until(lambda enough=enough: values() >= enough, "some values")
            gevent.sleep(chance.random() * 0.004)
            victims = children(server.pid)
            if victims and chance.random() < 0.8:
                os.kill(chance.choice(victims), signal.SIGKILL)
            else:
                callers[chance.randrange(CALLERS)].kill(block=False)

    callers = [gevent.spawn(caller, number) for number in range(CALLERS)]
    killing = gevent.spawn(killer)
    gevent.joinall(callers, timeout=120, raise_error=True)
    killing.kill()
    assert all(greenlet.successful() for greenlet in callers)

    tokens = range(CALLERS * CALLS)
    assert sorted(outcomes) == list(tokens)
    log = (tmp_path / "tokens").read_text().splitlines()
    twice = [line for line, count in Counter(log).items() if count > 1]
    assert twice == []
    served = {token for token, outcome in outcomes.items() if isinstance(outcome, int)}
    assert all(outcomes[token] == token for token in served)
    assert served <= {int(line.split()[0]) for line in log if line.endswith("done")}
    deaths = [outcome for outcome in outcomes.values() if isinstance(outcome, gtask.WorkerDied)]
    assert len(served) > len(tokens) // 2
    assert deaths
    assert all(error.executed is None for error in deaths)
    assert {error.signal for error in deaths} <= {"SIGKILL", ""}
