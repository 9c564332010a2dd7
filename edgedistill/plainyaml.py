"""YAML as plain data: shallow, without aliases, and with every key once. A text is hostile until it is read here."""

from __future__ import annotations

from typing import Any

import yaml

MAX_DEPTH = 12
MAX_TEXT = 300
_OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


def read_plain(text: str) -> Any:
    """The value of a YAML text, `None` for an empty one. Raises `ValueError` with one line for whatever is wrong."""
    try:
        _refuse_bombs(text)
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _refuse_twins(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except Exception as error:  # PyYAML raises KeyError, IndexError and more for a tag that lies
        words = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        raise ValueError(words[:MAX_TEXT] or type(error).__name__) from None


def _refuse_bombs(text: str) -> None:
    """Aliases unfold to any size and deep nesting takes quadratic time; plain data needs neither."""
    depth = 0
    for token in yaml.scan(text):
        if isinstance(token, yaml.AliasToken):
            raise ValueError("aliases (*name) are not allowed: write the values out")
        depth += isinstance(token, _OPENING)
        depth -= isinstance(token, _CLOSING)
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _refuse_twins(root: yaml.Node) -> None:
    """A key that stands twice has two meanings, and YAML would silently take the last."""
    open_nodes = [root]
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, yaml.SequenceNode):
            open_nodes += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        seen: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            open_nodes += [key, value]
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if (key.tag, key.value) in seen:
                    first = seen[key.tag, key.value]
                    raise ValueError(f'"{key.value}" stands twice, on lines {first} and {line}')
                seen[key.tag, key.value] = line
