"""
YAML as people write it, for the files a proxy is started with, without its traps.

A key that stands twice is refused (PyYAML would silently take the last), and so is an empty file.
PyYAML is imported when the first such file is read: a sidecar of a mesh is started from JSON, and
never loads it.
"""

from typing import Any


class YamlError(ValueError):
    """The text is not YAML that can be used; says where and why."""


def load(text: str | bytes) -> Any:
    """
    Return what a YAML document says, as plain data.

    Raises:
        YamlError: It is not YAML, is empty, or has a key twice; or PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError:
        raise YamlError(
            "reading YAML needs PyYAML (pip install pyyaml); JSON needs nothing"
        ) from None

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node: yaml.MappingNode = super().compose_mapping_node(anchor)
            first: dict[str, int] = {}
            for key, _ in node.value:
                line = key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode) and key.value in first:
                    message = f'"{key.value}" stands twice, first in line {first[key.value]}'
                    raise YamlError(f"line {line}: {message}")
                if isinstance(key, yaml.ScalarNode):
                    first[key.value] = line
            return node

    try:
        data = yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        raise YamlError(f"expected YAML: {error}") from None
    if data is None:
        raise YamlError("the file is empty")
    return data
