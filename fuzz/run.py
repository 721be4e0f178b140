"""`python fuzz/run.py TARGET SECONDS`: fuzzes a target with libFuzzer (atheris), and keeps what reached new code.

What is found on the way goes to `.fuzz/TARGET`; of that, what reaches code that no input in the repository reaches is
added to it. An input that breaks a law ends the run and is kept as `.fuzz/TARGET-crash-…`. Without arguments: the list.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "fuzz")]
LONGEST = 4096  # bytes of an input
MOST = 100  # inputs kept in the repository for each target


def fuzz(arguments: list[str]) -> None:
    """Hand over to libFuzzer, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=["gateway"], enable_loader_override=False):
        from targets import TARGETS

    name = arguments[0]
    # Merging starts this again through a shell, by what the first argument says.
    again = f"{shlex.quote(sys.executable)} {shlex.quote(__file__)} --inside {name}"
    atheris.Setup([again, *arguments[1:]], TARGETS[name])
    atheris.Fuzz()


def main() -> None:
    if len(sys.argv) < 2:
        from targets import TARGETS

        print(*TARGETS)
        return
    if sys.argv[1] == "--inside":
        fuzz(sys.argv[2:])
        return
    name, seconds = sys.argv[1], int(sys.argv[2])
    kept, found = ROOT / "fuzz" / "corpus" / name, ROOT / ".fuzz" / name
    kept.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    inside = [sys.executable, __file__, "--inside", name]
    ran = subprocess.run(
        [
            *inside, str(found), str(kept), f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=20",
            "-rss_limit_mb=2048", f"-artifact_prefix={found}-", "-print_final_stats=1", "-verbosity=0",
        ],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    lines = ran.stderr.splitlines()
    executed = [line.split(":")[-1].strip() for line in lines if "number_of_executed_units" in line]
    print(
        f"{name}: {executed[0] if executed else '?'} executions in {seconds} s, {'failed' if ran.returncode else 'ok'}"
    )
    if ran.returncode:
        print("\n".join([*ran.stdout.splitlines(), *lines][-60:]))
        sys.exit(1)
    before = set(kept.iterdir())
    subprocess.run([*inside, "-merge=1", str(kept), str(found), "-verbosity=0"], check=True, capture_output=True)
    new = sorted(set(kept.iterdir()) - before, key=lambda file: file.stat().st_size)
    for file in new[max(0, MOST - len(before)) :]:  # the repository keeps small ones, and few
        file.unlink()
    print(f"  corpus: {len(before)} inputs, {len(list(kept.iterdir())) - len(before)} more now")


if __name__ == "__main__":
    main()
