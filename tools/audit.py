"""The pinned packages against the known vulnerabilities, by pip-audit; says how many it could not look up.

    python tools/audit.py                     constraints.txt; exit status 0: all looked up, none vulnerable
    python tools/audit.py --allow-offline     the same where there is no network, which is then said and let pass

pip-audit itself ends well where it can look nothing up: an audit of nothing finds nothing. The exit status here is 1
where a vulnerability is known, and 2 where a package was not audited, unless that is allowed.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CLEAN, VULNERABLE, NOT_AUDITED = 0, 1, 2
Run = Callable[[list[str]], "subprocess.CompletedProcess[str]"]


class Audit(NamedTuple):
    """What was looked up: packages without and with a known vulnerability, those not looked up, and why not."""

    clean: list[str]
    vulnerable: list[str]
    skipped: list[str]
    why: str


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """The command with what it printed; without a network its attempts take minutes, and it is given ten."""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def pinned(requirements: Path) -> list[str]:
    """The lines NAME==VERSION of a file."""
    lines = (line.split("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def audit(requirements: Path, run: Run = run) -> Audit:
    """Looks every pinned package up; whatever goes wrong in that counts as not audited."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(requirements), "--no-deps", "--disable-pip"]
    try:
        answer = run([*command, "--format", "json", "--progress-spinner", "off"])
        found = json.loads(answer.stdout)["dependencies"]
    except (OSError, subprocess.SubprocessError) as error:
        return Audit([], [], pinned(requirements), type(error).__name__)
    except (ValueError, KeyError, TypeError):
        last = (answer.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return Audit([], [], pinned(requirements), last)
    clean, vulnerable, skipped, why = [], [], [], ""
    for package in found:
        name = f"{package['name']} {package.get('version', '')}".strip()
        if "skip_reason" in package:
            skipped.append(package["name"])
            why = why or package["skip_reason"]
        elif package.get("vulns"):
            vulnerable += [f"{name}: {each['id']}, mended in {_versions(each)}" for each in package["vulns"]]
        else:
            clean.append(name)
    known = {name.split()[0].lower() for name in clean} | {name.lower() for name in skipped}
    known |= {line.split()[0].lower() for line in vulnerable}
    lost = [line for line in pinned(requirements) if line.split("==")[0].lower().replace("_", "-") not in known]
    lost = [line for line in lost if line.split("==")[0].lower() not in known]
    return Audit(clean, vulnerable, skipped + lost, why or "it is not in the answer")


def _versions(vulnerability: dict[str, list[str]]) -> str:
    return ", ".join(vulnerability.get("fix_versions", [])) or "no version"


def told(found: Audit) -> list[str]:
    """What there is to say: each vulnerability, what was not audited and why, and the counts."""
    count = len(found.clean) + len(found.skipped) + len({line.split(":")[0] for line in found.vulnerable})
    lines = [f"vulnerable: {line}" for line in found.vulnerable]
    if found.skipped:
        shown = ", ".join(found.skipped[:3]) + (" ..." if len(found.skipped) > 3 else "")
        lines.append(f"not audited: {len(found.skipped)} of {count} packages ({shown}): {found.why}")
    return [*lines, f"audited: {count - len(found.skipped)} of {count} packages"]


def main(arguments: list[str] | None = None, run: Run = run) -> int:
    """The command; see the exit statuses above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requirements", type=Path, default=ROOT / "constraints.txt")
    parser.add_argument("--allow-offline", action="store_true", help="let packages pass that could not be looked up")
    given = parser.parse_args(arguments)
    found = audit(given.requirements, run)
    print(*told(found), sep="\n")
    if found.vulnerable:
        return VULNERABLE
    return NOT_AUDITED if found.skipped and not given.allow_offline else CLEAN


if __name__ == "__main__":
    sys.exit(main())
