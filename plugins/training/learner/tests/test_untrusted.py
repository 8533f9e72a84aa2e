"""Exports of somebody: what they may hold, and that what else they hold is refused in words."""

import hashlib
import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus_learner import ExportError, Learner, expressions, load, operators


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """An export of each kind, whose file is in no way special."""
    place = tmp_path_factory.mktemp("exports")
    x = torch.randn(16, 4)
    data = [(x[i : i + 8], torch.zeros(8, dtype=torch.long)) for i in (0, 8)]
    learner = Learner(
        (data, data),
        nn.Linear(4, 2),
        loss=functional.cross_entropy,
        plugins=["-progress"],
        run_dir=place / "runs",
    )
    learner.fit(1)
    learner.export(place / "torch.export", format="torch.export")
    learner.export(place / "weights", format="weights")
    return place


@pytest.fixture
def archive(exports, tmp_path):
    """`archive(edit)`: the export with another archive of records, and the checksum that fits."""

    def make(edit):
        out = tmp_path / "out"
        shutil.copytree(exports / "torch.export", out)
        with zipfile.ZipFile(out / "model.pt2") as source:
            items = [(each.filename, source.read(each)) for each in source.infolist()]
        with zipfile.ZipFile(out / "model.pt2", "w") as made:
            for name, content, *packed in edit(items):
                made.writestr(name, content, *packed)
        return with_its_checksum(out)

    return make


def with_its_checksum(out):
    about = json.loads((out / "description.json").read_text())
    about["files"]["model.pt2"] = hashlib.sha256((out / "model.pt2").read_bytes()).hexdigest()
    (out / "description.json").write_text(json.dumps(about))
    return out


class Touches:
    """Makes an empty file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "edit",
    [
        lambda items, name, code: [*(i for i in items if i[0] != name), (f"{name[:-3]}.PT", code)],
        lambda items, name, code: [(name.upper(), code), *items],
        lambda items, name, code: [(name, code)] * 7 + items,
        lambda items, name, code: [*items, (name, code)],
        lambda items, name, code: [(n, code if n == name else c) for n, c in items],
        lambda items, name, code: [*items, ("archive/data/weights/model.pt", code)],
        lambda items, name, code: [*items, ("archive/data/constants/model.pt", code)],
        lambda items, name, code: [*items, ("archive/data/constants/opaque_obj_0", code)],
        lambda items, name, code: [*items, ("serialized_state_dict.pt", code)],
        lambda items, name, code: [*items, ("archive/extra/x", code)],
        lambda items, name, code: [*items, ("archive/models/other.json", b"{}")],
        lambda items, name, code: [*items, ("archive/../data/weights/weight_9", code)],
    ],
)  # fmt: skip
def test_records_that_torch_does_not_write_execute_nothing(archive, tmp_path, edit):
    mark = tmp_path / "executed"
    torch.save(Touches(mark), tmp_path / "code.pt")
    code = (tmp_path / "code.pt").read_bytes()
    name = "archive/data/sample_inputs/model.pt"
    with pytest.raises(ExportError, match="it may execute code"):
        load(archive(lambda items: edit(items, name, code)))
    assert not mark.exists()


def test_a_packed_record_is_refused_before_it_is_unpacked(archive):
    packed = ("model/data/weights/weight_9", bytes(10**7), zipfile.ZIP_DEFLATED)
    with pytest.raises(ExportError, match="is packed, which torch does not do"):
        load(archive(lambda items: [*items, packed]))


def test_a_name_that_is_no_text_is_told(archive):
    out = archive(lambda items: items)
    data = bytearray((out / "model.pt2").read_bytes())
    data[6:8] = (0x800).to_bytes(2, "little")  # the name of the first record is UTF-8
    data[30] = 0xE1  # and its first byte is not
    (out / "model.pt2").write_bytes(data)
    with pytest.raises(ExportError, match=r"model\.pt2 is damaged: .*can't decode byte 0xe1"):
        load(with_its_checksum(out))


def changed(archive, change):
    """An export with another program."""

    def edit(items):
        for name, content in items:
            if name.endswith("models/model.json"):
                program = json.loads(content)
                change(program)
                content = json.dumps(program).encode()
            yield name, content

    return archive(edit)


def nodes(program):
    return program["graph_module"]["graph"]["nodes"]


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.from_file.out",
        "torch.ops.aten.set_.source_Storage",
        "torch.ops.aten.save.default",
        "torch.ops.image.write_file.default",
        "torch.ops.aten.manual_seed.default",
        "torch.ops.profiler._record_function_enter.default",
        "torch.ops.higher_order.call_torchbind",
        "torch.ops.inductor.resize_storage_bytes_.default",
        "torch.load",
        "torch.hub.load",
        "_operator.methodcaller",
        "_operator.attrgetter",
        "math.__loader__.load_module",
        "#x:y",
        "torch.ops.aten.linear",
        "print",
    ],
)
def test_a_function_that_does_not_only_compute_is_refused(archive, target):
    with pytest.raises(ExportError, match=r"is the function .*it may execute code"):
        load(changed(archive, lambda program: nodes(program)[0].update(target=target)))


def test_each_operator_of_torch_is_on_the_list_or_refused_by_its_schema():
    words, places = operators._CHOICES, {"filename", "path", "item", "message", "api_name", "key"}
    allowed = 0
    for schema in torch._C._jit_get_all_schemas():
        if operators.is_harmless(schema):
            allowed += 1
            texts = {a.name for a in schema.arguments if "str" in str(a.type)}
            assert texts <= words | {"assert_msg"}, schema
            assert not texts & places
            assert not re.search("Storage|Stream|__torch__|Any", str(schema)), schema
    assert 1000 < allowed < 3000
    assert operators.computes("torch.ops.aten.linear.default")
    assert operators.computes("torch.ops.aten.gelu.default")
    assert operators.computes("torch.ops.aten._assert_tensor_metadata.default")
    assert operators.computes("torch.sym_max")


def evil(mark):
    return f"__import__('pathlib').Path('{mark}').touch()"


@pytest.mark.parametrize(
    "change",
    [
        lambda program, code: program.update(guards_code=[code]),
        lambda program, code: program.update(guards_code=[f"1, {code}"]),
        lambda program, code: program.update(guards_code=["L['x'].size()[0] == 1)\n  exec('1'"]),
        lambda program, code: program.update(guards_code=["L['x'].__class__"]),
        lambda program, code: program.update(guards_code=["L['x'].numpy().tofile('x')"]),
        lambda program, code: program["graph_module"]["graph"]["sym_int_values"].update(
            s1={"as_expr": {"expr_str": code, "hint": None}}
        ),
        lambda program, code: program["graph_module"]["graph"]["sym_int_values"].update(
            s1={"as_expr": {"expr_str": "Pow(Integer(9), Pow(Integer(9), Integer(9)))"}}
        ),
        lambda program, code: nodes(program)[0].update(name=f"x = {code}"),
        lambda program, code: program["graph_module"]["graph"]["inputs"].append(
            {"as_tensor": {"name": f"x={code}"}}
        ),
        lambda program, code: program["graph_module"]["module_call_graph"][0]["signature"].update(
            in_spec=json.dumps([1, {
                "type": "collections.defaultdict", "children_spec": [],
                "context": json.dumps({"default_factory_module": "antigravity",
                                       "default_factory_name": "x", "dict_context": []}),
            }])
        ),
        lambda program, code: program["graph_module"]["module_call_graph"][0]["signature"].update(
            out_spec=json.dumps([1, {
                "type": "builtins.tuple", "children_spec": [],
                "context": json.dumps({"__enum__": True, "fqn": "antigravity:x", "name": "x"}),
            }])
        ),
        lambda program, code: program["graph_module"]["graph"]["custom_obj_values"].update(
            x={"name": "x", "class_fqn": "y"}
        ),
    ],
)  # fmt: skip
def test_what_torch_would_execute_or_import_is_refused(archive, tmp_path, change):
    mark = tmp_path / "executed"
    with pytest.raises(ExportError, match="it may execute code"):
        load(changed(archive, lambda program: change(program, evil(mark))))
    assert not mark.exists()


@pytest.mark.parametrize(
    "guard",
    [
        "L['x'].size()[0] == 3",
        "(1 + (((-1) + L['x'].size()[3]) // 2)) != 1",
        "torch.sym_max(1, (-2) + L['inputs'][0].size()[3])*2 != 1",
        "L['x'].size()[0] <= 9 and L['x'].size()[0] >= 2",
    ],
)
def test_guards_that_torch_writes_are_let_through(guard):
    expressions.check_guard(guard, "a guard")


def test_what_is_let_through_predicts_as_before(exports):
    x = torch.randn(4)
    weights = load(exports / "weights", model=nn.Linear(4, 2)).predict(x)
    program = load(exports / "torch.export").predict(x)
    assert torch.allclose(program.probabilities, weights.probabilities)


OTHERS = (
    None,
    3,
    -1,
    10**30,
    "x",
    "../x",
    [],
    {},
    [1],
    {"a": 1},
    {"a": {"a": 1}},
    float("nan"),
    True,
)


@pytest.mark.parametrize("kind", ["weights", "torch.export"])
def test_other_types_in_a_description_are_told(exports, tmp_path, kind):
    out = tmp_path / "out"
    shutil.copytree(exports / kind, out)
    about = json.loads((out / "description.json").read_text())
    model = {"model": nn.Linear(4, 2)} if kind == "weights" else {}
    told = 0
    for key in about:
        for other in (*OTHERS, "gone"):
            changed = {**about, key: other}
            if other == "gone":
                del changed[key]
            (out / "description.json").write_text(json.dumps(changed))
            try:
                load(out, **model).predict(torch.zeros(4))
            except ExportError:
                told += 1
    assert told > 50


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "", "\x00", "3", "null", f'{{"format": {"9" * 5000}}}'], ids=len
)
def test_a_description_that_is_none_is_told(exports, tmp_path, text):
    out = tmp_path / "out"
    shutil.copytree(exports / "weights", out)
    (out / "description.json").write_text(text)
    with pytest.raises(ExportError, match="is no export of a learner, or is damaged"):
        load(out)
