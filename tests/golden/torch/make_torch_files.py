#!/usr/bin/env python3
"""Writes *.pt as torch.save does, without torch: Python's own pickle module (protocol 2) and zip files.

The pickle names torch's classes by stand-ins of the same module and name; the archives are laid out as torch's are:
stored, data aligned to 64 bytes by an extra field, one of them with its sizes only in the directory (a data descriptor).
"""
import collections, io, pathlib, pickle, struct, sys, types, zipfile

torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
torch._utils = utils
sys.modules.update({"torch": torch, "torch._utils": utils})
for name in ("HalfStorage", "FloatStorage", "IntStorage", "LongStorage"):
    setattr(torch, name, type(name, (), {"__module__": "torch"}))

def _rebuild_tensor_v2(*arguments): raise NotImplementedError
_rebuild_tensor_v2.__module__ = "torch._utils"
utils._rebuild_tensor_v2 = _rebuild_tensor_v2

class Storage:
    def __init__(self, kind, n): self.kind, self.n = kind, n

class Tensor:
    def __init__(self, kind, n, offset): self.storage, self.n, self.offset = Storage(kind, n + offset), n, offset
    def __reduce_ex__(self, protocol):
        return utils._rebuild_tensor_v2, (self.storage, self.offset, (self.n,), (1,), False, collections.OrderedDict())

class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage): return ("storage", getattr(torch, value.kind), "0", "cpu", value.n)

class NoSeek(io.BytesIO):  # makes zipfile write data descriptors
    def seekable(self): return False
    def seek(self, *unused): raise io.UnsupportedOperation

def save(name, kind, code, values, offset=0, descriptors=False):
    pickled = io.BytesIO()
    Pickler(pickled, 2).dump(Tensor(kind, len(values), offset))
    data = struct.pack(f"<{offset + len(values)}{code}", *([99] * offset), *values)
    out = NoSeek() if descriptors else io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for entry, content in (("data.pkl", pickled.getvalue()), ("byteorder", b"little"), ("data/0", data), ("version", b"3\n")):
            info = zipfile.ZipInfo(f"{name}/{entry}", (1980, 1, 1, 0, 0, 0))
            if not descriptors:
                at = out.tell() + 30 + len(info.filename) + 4
                info.extra = b"FB" + struct.pack("<H", -at % 64) + b"Z" * (-at % 64)
            with archive.open(info, "w") as file: file.write(content)
    (pathlib.Path(__file__).parent / f"{name}.pt").write_bytes(out.getvalue())

save("fired_float", "FloatStorage", "f", [0, 3, 70000, 1, 12, 5])
save("fired_long", "LongStorage", "q", [6, 5, 4, 3, 2, 1], offset=2)
save("fired_int", "IntStorage", "i", [1, 1, 2, 3, 5, 8], descriptors=True)
save("share_half", "HalfStorage", "e", [0, 0.25, 0.5, 1, 0.125, 0.75])
save("negative_float", "FloatStorage", "f", [0, 1, -1, 0, 0, 0])
save("fired_96", "FloatStorage", "f", [i * 7 % 96 for i in range(96)])
