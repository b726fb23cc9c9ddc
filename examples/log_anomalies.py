"""Log anomalies: a service's log, read as it is written, and the lines that are unlike all before.

A synthetic log of a web shop has four faults planted in its second half: an error that never
occurred, fields in the wrong order, a status that a path never has, and a user who does what users
don't. A character model learns the first half; then a session reads on, line by line, and says how
surprising each one is the moment it is complete. The state of the session is all that has to be
kept between two lines, or between two runs of the service.

    python examples/log_anomalies.py            a minute
"""

import argparse
import random
from collections.abc import Iterator

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score

from lstmlm import LSTMLanguageModel, PerplexityDetector

USERS = ("alice", "bob", "carol", "dave", "erin")
PATHS = ("/", "/cart", "/search?q=lamp", "/search?q=chair", "/item/17", "/item/42")


def normal(rng: random.Random, second: int) -> str:
    """Write a line of everyday work."""
    clock = f"{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}"
    user, path = rng.choice(USERS), rng.choice(PATHS)
    return rng.choice(
        (
            f"{clock} INFO web user={user} GET {path} 200 {rng.randint(3, 40)}ms",
            f"{clock} INFO web user={user} GET {path} 304 {rng.randint(1, 5)}ms",
            f"{clock} INFO auth user={user} login ok from 10.0.{rng.randint(0, 3)}."
            f"{rng.randint(1, 254)}",
            f"{clock} INFO shop user={user} order {rng.randint(1000, 9999)} paid "
            f"{rng.randint(5, 300)} EUR",
            f"{clock} WARN db pool {rng.randint(80, 95)}% used",
        )
    )


def fault(rng: random.Random, second: int) -> str:
    """Write a line that something is wrong with."""
    clock = f"{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}"
    user = rng.choice(USERS)
    return rng.choice(
        (
            f"{clock} ERROR db connection refused: too many clients",
            f"{clock} INFO web GET user={user} /cart 200 12ms",
            f"{clock} INFO web user={user} GET / 503 {rng.randint(3, 40)}ms",
            f"{clock} INFO auth user=root login ok from 91.13.7.{rng.randint(1, 254)}",
        )
    )


def log(rng: random.Random, n_lines: int, share_of_faults: float) -> Iterator[tuple[str, bool]]:
    """Yield lines in the order of time, and whether each is a fault."""
    second = rng.randrange(86_400)
    for _ in range(n_lines):
        second += rng.randint(0, 9)
        is_fault = rng.random() < share_of_faults
        yield (fault if is_fault else normal)(rng, second), is_fault


def main() -> None:
    """Learn one half of a log, watch the other, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=6_000)
    parser.add_argument("--seconds", type=float, default=30)
    args = parser.parse_args()

    rng = random.Random(0)
    past = [line for line, _ in log(rng, args.lines, 0.0)]
    lm = LSTMLanguageModel(tokenizer="char", max_seconds=args.seconds, random_state=0).fit(past)

    # The threshold: of normal lines one in a hundred is above it.
    detector = PerplexityDetector(FrozenEstimator(lm), contamination=0.01, statistic="max")
    detector.fit([line for line, _ in log(rng, 1_000, 0.0)])

    session, state = lm.session(), b""
    largest, truth = [], []
    for number, (line, is_fault) in enumerate(log(rng, 2_000, 0.01)):
        if number % 500 == 250:  # the service stops here, and another one goes on
            state = session.state
            session = lm.session(state)
        tokens = session.feed(line) + session.end_text()
        surprisals = [-token.log_prob / np.log(2) for token in tokens]
        largest.append(max(surprisals))
        truth.append(is_fault)
        if largest[-1] > -detector.offset_:
            oddest = tokens[int(np.argmax(surprisals))]
            at = oddest.start - tokens[0].start
            marked = f"{line[:at]}[{line[at : at + 1]}]{line[at + 1 :]}"
            print(f"{'fault ' if is_fault else 'normal'} {largest[-1]:5.1f} bits  {marked}")

    flagged = np.array(largest) > -detector.offset_
    faults = np.array(truth)
    print(
        f"\n{faults.sum()} faults among {len(faults)} lines: {(flagged & faults).sum()} found, "
        f"{(flagged & ~faults).sum()} false alarms, ROC-AUC {roc_auc_score(faults, largest):.4f}; "
        f"the session's state has {len(state):,} bytes."
    )


if __name__ == "__main__":
    main()
