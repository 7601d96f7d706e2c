"""Random deliveries, a good message behind each: none loses another, or the connection.

It begins with another seed each time; ``FUZZ_SEED=4711 make test ARGS=tests/test_fuzz.py`` repeats
one, and ``python -m tests.fuzz 4711 12`` shows the delivery of that number. The long form is
``make faults ARGS=fuzz``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter

from tests.fuzz import BODIES, MUTATIONS, act, delivery, is_taken
from tests.fuzzing import Fuzz
from tests.oddities import EXCEPTIONS, RESULTS

MOST = 3000
"""deliveries"""

SECONDS = 6.0
"""after which no more are begun"""


def test_whatever_is_delivered_the_next_message_is_handled(broker, tmp_path, queue_name, figure):
    seed = int(os.environ.get('FUZZ_SEED') or random.SystemRandom().randrange(10**6))
    print(f'FUZZ_SEED={seed}')
    kind = random.Random(seed).choice(('classic', 'quorum'))
    fuzz = Fuzz(str(tmp_path), broker.port, queue_name, seed, kind, ledger=seed % 2 == 0)
    outcome = fuzz.run(MOST, SECONDS)
    figure(f'random deliveries, FUZZ_SEED={seed}, {kind}', str(len(outcome.deliveries)))
    assert not outcome.faults, str(outcome)


def test_a_delivery_is_made_by_its_seed_and_its_number():
    for number in range(50):
        assert delivery(1, number, 'q') == delivery(1, number, 'q')
        assert act(1, number) == act(1, number)
    assert delivery(1, 7, 'q') != delivery(2, 7, 'q')
    done = subprocess.run([sys.executable, '-m', 'tests.fuzz', '1', '7'], text=True, check=True,
                          stdout=subprocess.PIPE)  # fmt: skip
    assert act(1, 7).error in done.stdout or act(1, 7).result in done.stdout


def test_every_kind_of_delivery_is_made_and_most_can_be_published():
    made = [delivery(3, number, 'q') for number in range(3000)]
    acts = [act(3, number) for number in range(3000)]
    assert {each.kinds[0] for each in made} == set(MUTATIONS)
    assert {each.kinds[1] for each in made} == set(BODIES)
    assert {each.result for each in acts} == {*RESULTS, ''}
    assert {each.error for each in acts} == {*EXCEPTIONS, ''}
    taken = Counter(is_taken(each.packed) for each in made)
    assert taken[True] > taken[False] > 500
