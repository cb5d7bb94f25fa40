"""GGUF files made byte by byte: no library stands between a test and the bytes it wants."""
import struct

KINDS = {"u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7,
         "string": 8, "array": 9, "u64": 10, "i64": 11, "f64": 12}
CODES = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f",
         "bool": "B", "u64": "Q", "i64": "q", "f64": "d"}
# Of types: the number, values and bytes of a block.
TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144),
         "I32": (26, 1, 4), "BF16": (30, 1, 2), "MXFP4": (39, 32, 17), "NVFP4": (40, 64, 36)}


def text(value):
    """A string: bytes, or text in UTF-8."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def value(kind, content):
    return text(content) if kind == "string" else struct.pack("<" + CODES[kind], content)


def array(kind, items):
    """The value of an array, for key()."""
    return struct.pack("<IQ", KINDS[kind], len(items)) + b"".join(value(kind, i) for i in items)


def key(name, kind, content):
    """A key; the content of an array is bytes, as array() makes them."""
    return text(name) + struct.pack("<I", KINDS[kind]) + (content if kind == "array"
                                                          else value(kind, content))


def size_of(kind, ne):
    _, values, size = TYPES[kind]
    count = ne[0] // values * size
    for n in ne[1:]:
        count *= n
    return count


def info(name, ne, kind, offset):
    """A tensor's entry; kind is a name of TYPES or a number."""
    number = TYPES[kind][0] if isinstance(kind, str) else kind
    return (text(name) + struct.pack("<I", len(ne)) + struct.pack(f"<{len(ne)}Q", *ne) +
            struct.pack("<IQ", number, offset))


def pack(keys=(), infos=(), data=b"", *, version=3, magic=b"GGUF", counts=None, alignment=32):
    """A file of any parts; counts (tensors, keys) may be wrong."""
    tensors, key_count = counts or (len(infos), len(keys))
    head = magic + struct.pack("<IQQ", version, tensors, key_count) + b"".join(keys) + \
        b"".join(infos)
    return head + bytes(-len(head) % alignment) + data


def model(keys=(), tensors=(), alignment=32, **options):
    """A good file: tensors are (name, ne, kind, bytes)."""
    infos, data = [], b""
    for name, ne, kind, content in tensors:
        assert len(content) == size_of(kind, ne), name
        infos.append(info(name, ne, kind, len(data)))
        data += content + bytes(-len(content) % alignment)
    return pack(keys, infos, data, alignment=alignment, **options)


class Parsed:
    """A file taken apart: keys as (name, bytes), tensors as (name, ne, type, bytes)."""

    def __init__(self, path):
        self.data, self.at = path.read_bytes(), 4
        self.version, tensors, keys = self.take("<IQQ")
        self.keys = [self.read_key() for _ in range(keys)]
        infos = [self.read_info() for _ in range(tensors)]
        self.data_offset = self.at + -self.at % 32
        kinds = {number: name for name, (number, _, _) in TYPES.items()}
        self.tensors = []
        for name, ne, number, offset in infos:
            begin = self.data_offset + offset
            size = size_of(kinds[number], ne)
            self.tensors.append((name, ne, kinds[number], self.data[begin:begin + size]))

    def take(self, form):
        found = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return found

    def read_text(self):
        size, = self.take("<Q")
        self.at += size
        return self.data[self.at - size:self.at].decode()

    def read_value(self, kind):
        if kind == KINDS["string"]:
            return self.read_text()
        if kind != KINDS["array"]:
            return self.take("<" + CODES[next(k for k in KINDS if KINDS[k] == kind)])[0]
        element, count = self.take("<IQ")
        return [self.read_value(element) for _ in range(count)]

    def read_key(self):
        begin = self.at
        name = self.read_text()
        value_of_key = self.read_value(self.take("<I")[0])
        return name, value_of_key, self.data[begin:self.at]

    def read_info(self):
        name = self.read_text()
        rank, = self.take("<I")
        ne = list(self.take(f"<{rank}Q"))
        return name, ne, *self.take("<IQ")

    @property
    def values(self):
        """{key: value}"""
        return {name: content for name, content, _ in self.keys}

    def without(self, *names):
        """The same model without some keys."""
        self.keys = [k for k in self.keys if k[0] not in names]
        return self

    def renamed(self, rename):
        """The same model with other names of tensors; None: a tensor is left out."""
        self.tensors = [(rename(t[0]), *t[1:]) for t in self.tensors if rename(t[0]) is not None]
        return self

    def write(self, path):
        path.write_bytes(model([raw for _, _, raw in self.keys], self.tensors))
        return path
