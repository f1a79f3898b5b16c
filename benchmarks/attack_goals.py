"""The goals of `benchmarks/attacks.py` with their figures."""

from typing import Any


def goals(results: dict[str, Any]) -> str:
    """The goals with their figures, as Markdown; a pure function of the results."""
    lines = ["| what | goal | figure | met |", "| --- | --- | --- | --- |"]

    def row(what: str, goal: str, figure: str, met: bool | None) -> None:
        lines.append(f"| {what} | {goal} | {figure} | {'' if met is None else 'yes' if met else '**no**'} |")

    for name, part in results["fast"].items():
        for peer, faster in part["times faster"].items():
            bare = peer.endswith("bare")
            row(
                f"{name}: times faster than {peer}",
                "-" if bare else ">= 1",
                f"{faster:.2f}",
                None if bare else faster >= 1,
            )
        success = ", ".join(f"{peer} {count}" for peer, count in part["success"].items())
        row(f"{name}: successes of {part['images']}", "-", success, None)
    for name, part in results["minimal"].items():
        for peer in ("art", "foolbox"):
            against = part[f"against {peer}"]
            faster, own, other = (against[key] for key in ("times faster", "mean norm, ours", "mean norm, theirs"))
            wanted = peer == "art"
            row(
                f"{name}: times faster than {peer}",
                ">= 3" if wanted else "-",
                f"{faster:.1f}",
                faster >= 3 if wanted else None,
            )
            figure, slack = f"{own:.4f} against {other:.4f}", 1.0005 if wanted else 1.02
            goal = "<= theirs" if wanted else "<= 1.02 theirs"
            row(f"{name}: mean L2 norm against {peer}'s", goal, figure, own <= slack * other)
        own, other = part["success"]["ours"], part["success"]["art"]
        success = ", ".join(f"{peer} {count}" for peer, count in part["success"].items())
        row(f"{name}: successes of {part['images']}", ">= art's", success, own >= other)
    ratio = results["gradient"]["gradient less forward, over forward"]
    row("gradient through the layer less its forward pass, over it", "<= 3", f"{ratio:.2f}", ratio <= 3)
    peaks = {key: part for key, part in results["memory"].items() if key.startswith("implicit")}
    whole = [part["forward and backward"] for part in peaks.values()]
    figure = ", ".join(f"{part['forward and backward']:.0f} MB at {part['iterations']:.0f}" for part in peaks.values())
    constant = max(whole) <= 1.1 * min(whole)
    row("peak memory of a gradient, by the iterations of its forward pass", "largest <= 1.1 smallest", figure, constant)
    return "\n".join([*lines, ""])
