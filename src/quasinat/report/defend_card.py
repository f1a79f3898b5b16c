"""The card of a classifier behind the layer, in Markdown: what the layer costs it, and what is not known."""

from typing import Any

from quasinat.report.wording import interval, percent

NOT_ATTACKED = (
    "Not attacked: nothing is known about robustness. Agreement and accuracy on clean images are what the layer costs."
)


def card_rows(card: dict[str, Any]) -> list[list[str]]:
    """The table of a card of `defend`, its head first: what was measured, without and with the layer."""
    rows = [["", "the classifier", "behind the layer"]]
    if card["accuracy"] is not None:
        rows.append(["accuracy", *(_share(card["accuracy"][name]) for name in ("plain", "defended"))])
    rows.append(["same class", "", _share(card["agreement"])])
    if card["agreement_of_confident"] is not None:
        rows.append(["same class, of confident answers", "", _share(card["agreement_of_confident"])])
    rows.append(["mean confidence", *(f"{100 * card['confidence'][name]:.1f}" for name in ("plain", "defended"))])
    if card["attack"] is not None:
        name = f"accuracy under PGD, L∞ {255 * card['settings']['eps']:g}/255, {card['settings']['steps']} steps"
        rows.append([name, *(_share(card["attack"][part]) for part in ("plain", "defended"))])
    times = card["seconds_per_image"]
    return [*rows, ["ms an image", *(f"{1000 * times[name]:.3g}" for name in ("plain", "defended"))]]


def card_caption(card: dict[str, Any]) -> str:
    """What the table is of, and what it does not say, in a paragraph."""
    images, size = card["images"], "×".join(map(str, card["images"]["shape"][1:]))
    text = f"{images['n']} clean images of {size} pixels; labels: {images['labels']}. Shares in %, with "
    text += "95 % Wilson intervals. "
    if card["psnr"] is not None:
        text += f"T(x) has a mean PSNR of {card['psnr']:.1f} dB. "
    if card["attack"] is None:
        return text + NOT_ATTACKED
    attack = card["attack"]
    return (
        f"{text}The attack is made on each of the two by its own true gradient ({attack['gradient']}) on "
        f"{attack['plain']['n']} images, and judged by {attack['judged by']}. It is one attack: an evaluation makes "
        "all of them (`quasinat evaluate`)."
    )


def card_markdown(card: dict[str, Any]) -> str:
    """The whole card."""
    head, *rows = card_rows(card)
    table = [f"| {' | '.join(row)} |" for row in [head, ["---", "---:", "---:"], *rows]]
    model, layer = card["model"], card["layer"]
    name = model.get("name", "The classifier")
    file = layer.get("file", "in memory")
    size = "any size" if model["size"] is None else f"{'×'.join(map(str, model['size']))} pixels"
    facts = [
        f"- classifier: {name}, {model['classes']} classes, {model['parameters']:,} parameters, fingerprint "
        f"`{model['fingerprint'][:16]}`",
        f"- it sees (x - mean) / deviation{' of the channels in reverse' * model['flipped']}, "
        f"mean {_row(model['mean'])}, deviation {_row(model['deviation'])}, at {size}; {model['resizing']}",
        f"- layer: {file}, λ = {layer['sparsity']:g}, fingerprint `{layer['fingerprint'][:16]}`",
        f"- made by quasinat {card['provenance']['quasinat']}, torch {card['provenance']['torch']}",
    ]
    left_out = [f"- left out: {line}" for line in card["images"]["left_out"]]
    parts = [f"# {name}, behind the layer", "\n".join(table), card_caption(card), "\n".join(facts + left_out)]
    return "\n\n".join(parts) + "\n"


def _row(numbers: list[float]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)


def _share(share: dict[str, Any]) -> str:
    return f"{percent(share['value'])} {interval(share)}"
