"""Calls that could run code out of data: what a source file has of them, by its syntax tree and whatever it renames."""

import ast
from collections.abc import Iterator

PICKLES = {"pickle", "cPickle", "_pickle", "dill", "joblib", "cloudpickle", "marshal", "shelve", "jsonpickle"}
NEVER = {"eval", "exec", "builtins.eval", "builtins.exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}
NEVER |= {"pandas.read_pickle", "runpy.run_path", "code.interact"}


def forbidden(tree: ast.AST, own_pickles: bool = False) -> Iterator[str]:
    """What a file calls or imports that could run code out of data, each with its line.

    `torch.load` is one without a literal `weights_only=True`, `numpy.load` with `allow_pickle` other than a literal
    False, anything with `shell=True`, and every pickle.

    Args:
        own_pickles: whether `pickle.loads(pickle.dumps(...))` is let through, as a test of what is pickled may do.
    """
    names = _names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and not own_pickles:
            yield from (f"{name} in line {node.lineno}" for name in _imported(node) if name.split(".")[0] in PICKLES)
        if not isinstance(node, ast.Call):
            continue
        called = _dotted(node.func, names)
        given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
        wrong = called in NEVER
        wrong |= called == "torch.load" and given.get("weights_only") is not True
        wrong |= called == "numpy.load" and given.get("allow_pickle", False) is not False
        wrong |= given.get("shell", False) is not False
        if called.split(".")[0] in PICKLES:
            inner = node.args[0] if node.args else None
            of_own = isinstance(inner, ast.Call) and _dotted(inner.func, names) == "pickle.dumps"
            wrong |= not (own_pickles and (called == "pickle.dumps" or (called == "pickle.loads" and of_own)))
        if wrong:
            yield f"{called} in line {node.lineno}"


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    module = "" if isinstance(node, ast.Import) or node.level else f"{node.module}."
    return [f"{module}{alias.name}" for alias in node.names]


def _names(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias, whole in zip(node.names, _imported(node), strict=True):
                first = whole.split(".")[0]
                known[alias.asname or (alias.name if isinstance(node, ast.ImportFrom) else first)] = (
                    whole if alias.asname or isinstance(node, ast.ImportFrom) else first
                )
    return known


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """`np.load` as `numpy.load`; nothing of what is no plain name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([names.get(node.id, node.id), *reversed(parts)])
