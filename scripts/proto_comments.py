"""The API's definition with its comments, read from proto/foldback/v1 by protoc."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from google.protobuf import descriptor_pb2 as pb
from grpc_tools import protoc

PROTO = Path(__file__).parents[1] / "proto"
PACKAGE = "foldback.v1."
SERVICE, MESSAGE, ENUM = 6, 4, 5
"""Field numbers of FileDescriptorProto: the first step of a comment's path."""
METHOD = FIELD = VALUE = 2
"""Of ServiceDescriptorProto, DescriptorProto and EnumDescriptorProto."""
NESTED = 3
_TYPES = {number: name.removeprefix("TYPE_").lower() for name, number in pb.FieldDescriptorProto.Type.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """A method, a field or a value."""

    name: str
    type: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Group:
    """A service, a message or an enum."""

    name: str
    meaning: str
    entries: tuple[Entry, ...]


class File:
    def __init__(self, descriptor: pb.FileDescriptorProto) -> None:
        self._file = descriptor
        self._comments = {
            tuple(location.path): location.leading_comments.strip() or location.trailing_comments.strip()
            for location in descriptor.source_code_info.location
        }

    def services(self) -> list[Group]:
        made = []
        for number, service in enumerate(self._file.service):
            path = (SERVICE, number)
            methods = tuple(
                Entry(method.name, _signature(method), self._said(*path, METHOD, index, name=method.name))
                for index, method in enumerate(service.method)
            )
            made.append(Group(service.name, self._said(*path, name=service.name), methods))
        return made

    def messages(self) -> list[Group]:
        return [
            group
            for number, message in enumerate(self._file.message_type)
            for group in self._message(message, message.name, (MESSAGE, number))
        ]

    def enums(self) -> list[Group]:
        made = []
        for number, enum in enumerate(self._file.enum_type):
            values = tuple(
                Entry(value.name, str(value.number), self._said(ENUM, number, VALUE, index))
                for index, value in enumerate(enum.value)
                if value.number
            )
            made.append(Group(enum.name, self._said(ENUM, number, name=enum.name), values))
        return made

    def _message(self, message: pb.DescriptorProto, name: str, path: tuple[int, ...]) -> Iterator[Group]:
        maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
        fields = tuple(
            Entry(field.name, _type(field, message, maps), self._said(*path, FIELD, index))
            for index, field in enumerate(message.field)
        )
        yield Group(name, self._said(*path, name=message.name), fields)
        for number, nested in enumerate(message.nested_type):
            if nested.name not in maps:
                yield from self._message(nested, f"{name}.{nested.name}", (*path, NESTED, number))

    def _said(self, *path: int, name: str = "") -> str:
        """The comment there, without the name that it begins with by convention."""
        words = " ".join(self._comments.get(path, "").split())
        said = words.removeprefix(f"{name}:").removeprefix(f"{name} ").strip() if name else words
        is_name = "." in said.split(",")[0].rstrip(".")  # a topic, say
        return said if is_name else said[:1].upper() + said[1:]


def read(name: str) -> File:
    """`proto/foldback/v1/<name>.proto`."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "set"
        well_known = resources.files("grpc_tools") / "_proto"
        status = protoc.main(
            [
                *("protoc", f"-I{PROTO}", f"-I{well_known}", "--include_source_info"),
                *(f"--descriptor_set_out={out}", f"foldback/v1/{name}.proto"),
            ]
        )
        assert status == 0, f"protoc refuses {name}.proto"
        return File(pb.FileDescriptorSet.FromString(out.read_bytes()).file[0])


def _signature(method: pb.MethodDescriptorProto) -> str:
    answer = ("stream " if method.server_streaming else "") + _short(method.output_type)
    return f"{_short(method.input_type)} → {answer}"


def _type(field: pb.FieldDescriptorProto, message: pb.DescriptorProto, maps: dict[str, pb.DescriptorProto]) -> str:
    entry = maps.get(field.type_name.rsplit(".", 1)[-1])
    if entry is not None:
        key, value = entry.field
        return f"map<{_plain(key)}, {_plain(value)}>"
    name = _plain(field)
    if field.label == pb.FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    if field.proto3_optional:
        return f"optional {name}"
    if field.HasField("oneof_index"):
        return f"{name} (one of {message.oneof_decl[field.oneof_index].name})"
    return name


def _plain(field: pb.FieldDescriptorProto) -> str:
    return _short(field.type_name) if field.type_name else _TYPES[field.type]


def _short(name: str) -> str:
    return name.lstrip(".").removeprefix(PACKAGE).removeprefix("google.protobuf.")
