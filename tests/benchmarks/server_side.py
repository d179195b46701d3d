"""What a decision costs the server, in time and in memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import quantiles
from typing import Any

from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Algorithm, Charge, QuotaPolicy
from django_ratelimit_tiers.store.redis import RedisStore
from tests.benchmarks.bench import Bench
from tests.benchmarks.decisions import POLICIES, Decisions
from tests.benchmarks.floor import Floor
from tests.benchmarks.peers import MANY
from tests.benchmarks.reports import Cell, Goal, Table
from tests.servers import ValkeyProcess

POLICY_COUNTS = (1, 2, 4, 8, 16)
CLIENT_COUNTS = (1, 4, 16, 64)
SUBJECTS = 1_000


def measure(bench: Bench) -> None:
    """Add the tables of script time, of parallel clients and of memory."""
    store = RedisStore(url=bench.valkey.url, timeout=5)
    with bench.valkey.client() as client:
        _measure_scripts(bench, client, store)
        _measure_clients(bench, client, store)
        _measure_memory(bench)
    store.close()


def _measure_scripts(bench: Bench, client: Any, store: RedisStore) -> None:
    rounds, each = bench.choose(5, 40), 500
    three, floor = Decisions(store, 3), Floor(bench.valkey.url)
    runs = {"floor F": floor.hit, "tier of 2 + 1 rule": three.run}
    runs |= {f"{count} policies of one subject": _many(store, count) for count in POLICY_COUNTS}
    least = dict.fromkeys(runs, float("inf"))
    total: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken = _script_time(client, run, each)
            least[name] = min(least[name], taken)
            total[name].append(taken)
    rows = [(name, least[name], sorted(total[name])[rounds // 2]) for name in runs]
    bench.report.tables.append(
        Table(
            "Time inside the server",
            "Microseconds for each call of the script by `INFO commandstats`, in rounds of "
            f"{each} calls: the best round, and the median of {rounds}.",
            ("", "best us", "median us"),
            rows,
        )
    )
    best = least["tier of 2 + 1 rule"]
    bench.report.goals.append(Goal("script of one decision", best, most=20, unit=" us"))


def _script_time(client: Any, run: Any, count: int) -> float:
    client.config_resetstat()
    for number in range(count):
        run(number)
    return float(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])


def _many(store: RedisStore, count: int) -> Any:
    kinds = (Algorithm.TOKEN_BUCKET, Algorithm.SLIDING_WINDOW_COUNTER)
    policies = [QuotaPolicy(f"p{n}", MANY, 60 + n, kinds[n % 2]) for n in range(count)]
    revision = store.revision()

    def run(number: int) -> None:
        subject = f"many:{number % SUBJECTS}"
        charges = tuple(Charge(subject, policy) for policy in policies)
        store.execute(Plan(charges, revision=revision, labels=("",) * count))

    return run


def _measure_clients(bench: Bench, client: Any, store: RedisStore) -> None:
    decisions = Decisions(store, 3)
    rows: list[tuple[Cell, ...]] = []
    for clients in CLIENT_COUNTS:
        count = bench.choose(2_000, 20_000) // clients
        client.config_resetstat()
        begin = time.perf_counter()
        with ThreadPoolExecutor(clients) as threads:
            latencies = threads.map(_timed, [(decisions, count)] * clients)
            taken = [one for many in latencies for one in many]
        seconds = time.perf_counter() - begin
        script = client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"]
        p99 = quantiles(taken, n=100)[98] * 1e6
        rows.append((f"{clients} threads", len(taken) / seconds, p99, float(script)))
    bench.report.tables.append(
        Table(
            "Parallel clients",
            "Threads of one process, each deciding as fast as it can on a connection of its own.",
            ("", "decisions/s", "p99 us", "script us"),
            rows,
        )
    )


def _timed(work: tuple[Decisions, int]) -> Sequence[float]:
    decisions, count = work
    taken = []
    for number in range(count):
        begin = time.perf_counter()
        decisions.run(number)
        taken.append(time.perf_counter() - begin)
    return taken


def _measure_memory(bench: Bench) -> None:
    tier, count = POLICIES[:2], bench.choose(2_000, 20_000)
    log = QuotaPolicy("log", 1_000, 3600, Algorithm.SLIDING_WINDOW_LOG)
    rows: list[tuple[Cell, ...]] = []
    for name, policies in {
        "tier minute + day": tier,
        "tier minute + day and one rule": POLICIES,
        "fixed window": (QuotaPolicy("f", MANY, 60, Algorithm.FIXED_WINDOW),),
        "sliding window counter": (QuotaPolicy("s", MANY, 60),),
        "token bucket": (QuotaPolicy("b", MANY, 60, Algorithm.TOKEN_BUCKET),),
        "log, 1 request": (log,),
    }.items():
        rows.append((name, _bytes_each(policies, count)))
    rows.append(("log, each further request", _bytes_each_logged(log)))
    bench.report.tables.append(
        Table(
            "Memory in the server",
            f"Bytes of the whole data set for each of {count:,} active subjects with two "
            "requests each, keys and expiry included.",
            ("", "bytes"),
            rows,
        )
    )
    bench.report.goals += [
        Goal("memory of tier minute + day", float(rows[0][1]), most=170, unit=" bytes"),
        Goal("memory of a logged request", float(rows[-1][1]), most=12, unit=" bytes"),
    ]


def _bytes_each(policies: Sequence[QuotaPolicy], count: int) -> float:
    with ValkeyProcess() as valkey, valkey.client() as client:
        store = RedisStore(url=valkey.url, timeout=5)
        store.acquire([Charge("client:0", policy) for policy in policies])
        before = client.info("memory")["used_memory_dataset"]
        for number in [*range(1, count + 1)] * 2:  # a value takes more once it is written over
            store.acquire([Charge(f"client:{number}", policy) for policy in policies])
        after = client.info("memory")["used_memory_dataset"]
        store.close()
    return float(after - before) / count


def _bytes_each_logged(log: QuotaPolicy) -> float:
    with ValkeyProcess() as valkey, valkey.client() as client:
        store = RedisStore(url=valkey.url, timeout=5)
        sizes = []
        for number in range(1_000):
            store.acquire([Charge("client:0", log)])
            if number in (99, 999):
                sizes.append(sum(client.memory_usage(key, samples=0) for key in client.scan_iter()))
        store.close()
    return (sizes[1] - sizes[0]) / 900
