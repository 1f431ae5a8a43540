import json

import jsonschema
import msgspec
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.results.migrate import read_record
from ck_mlperf.results.record import SCHEMA_VERSION
from ck_mlperf.results.report import format_report

from ..builders.records import find_holder, is_optional, list_paths, make_json, make_record

VERSIONS = range(1, SCHEMA_VERSION + 1)


def read(record):
    return read_record(json.dumps(record).encode())


def drop_new(record, older):
    """The JSON of a record without what is None and what an older one lacks."""
    if isinstance(record, dict) and isinstance(older, dict):
        known = {key: part for key, part in record.items() if part is not None or key in older}
        return {key: drop_new(part, older.get(key)) for key, part in known.items()}
    if isinstance(record, list) and isinstance(older, list):
        return [drop_new(*parts) for parts in zip(record, older, strict=True)]
    return record


def test_current_records_stay_as_they_are():
    dataset = {"source_files_sha256": "1" * 64, "known_by": "contents"}
    current = make_json(verdicts={"loadgen": {"interface": "native"}}, dataset=dataset)
    assert drop_new(msgspec.to_builtins(read(current)), current) == current


def test_what_version_1_did_not_note():
    first = make_json(1)
    record = read(first)
    assert record.schema_version == SCHEMA_VERSION
    assert record.conditions is record.engine.devices is record.explore_run is None
    assert record.verdicts.loadgen.interface == "wheel"
    first["verdicts"]["loadgen"]["interface"] = "wheel"
    first["engine"]["devices"] = None
    wanted = first | {"schema_version": SCHEMA_VERSION, "conditions": None}
    assert drop_new(msgspec.to_builtins(record), wanted) == wanted


def test_what_later_records_of_version_1_noted_stays():
    devices = [{"device": "GPU 1", "samples": 160, "samples_per_second": 9.5, "batches": 20}]
    setting = {"value": [1], "origin": "env"}
    record = make_record(
        1, engine={"devices": devices}, settings={"ours": {"CK_CUDA_DEVICES": setting}}
    )
    assert msgspec.to_builtins(record.engine.devices) == devices
    assert record.settings.ours["CK_CUDA_DEVICES"].value == [1]


@pytest.mark.parametrize("version", VERSIONS)
def test_records_of_any_version_can_be_read(version, record_schema):
    record = make_record(version)
    jsonschema.validate(msgspec.to_builtins(record), record_schema)
    format_report(record)


def test_a_newer_version():
    with pytest.raises(UserError, match="made by a newer ck-mlperf: version 99; update this"):
        read({"schema_version": 99})


@pytest.mark.parametrize("text", ["null", "[]", "3", '"record"', "{}"])
def test_json_of_another_program(text):
    assert read_record(text.encode()) is None


@pytest.mark.parametrize("version", ['"1"', "true", "1.0", "0", "null"])
def test_no_version_at_all(version):
    with pytest.raises(UserError, match="not a record of a run: its schema_version is"):
        read_record(f'{{"schema_version": {version}}}'.encode())


@pytest.mark.parametrize("content", [b"", b'{"schema_version": 2', b"\xff", b"[" * 100_000])
def test_no_json(content):
    with pytest.raises(UserError, match="not JSON: "):
        read_record(content)


@pytest.mark.parametrize("version", VERSIONS)
def test_any_part_missing(version):
    first = make_json(version)
    # What these have depends on the version of a library, or of this program.
    free = [("environment", "packages"), ("settings", "loadgen"), ("settings", "ours")]
    free.append(("dataset", "libraries"))
    for path in list_paths(first):
        if isinstance(path[-1], int) or path[:-1] in free or path == ("schema_version",):
            continue
        record = make_json(version)
        del find_holder(record, path)[path[-1]]
        if is_optional(path):
            assert read(record)
            continue
        with pytest.raises(UserError, match=rf"missing required field `{path[-1]}`"):
            read(record)


@pytest.mark.parametrize("version", VERSIONS)
def test_any_part_of_a_wrong_type(version):
    first = make_json(version)
    for path in list_paths(first):
        record = make_json(version)
        find_holder(record, path)[path[-1]] = [{"odd": {}}]  # no part is a list of such
        with pytest.raises(UserError, match="not a record of a run"):
            read(record)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"timing": {"wall_s": "long"}}, "Expected `float`, got `str` - at `$.timing.wall_s`"),
        ({"scenario": "Multistream"}, "Invalid enum value 'Multistream' - at `$.scenario`"),
        ({"accuracy": {"good": True}}, "Expected `int`, got `bool` - at `$.accuracy.good`"),
        ({"counts": {"queries": 0}}, "Expected `int` >= 1 - at `$.counts.queries`"),
        ({"model": {"sha256": "0"}}, "matching regex '^[0-9a-f]{64}$' - at `$.model.sha256`"),
        ({"verdicts": {"rules": []}}, "Expected `array` of length >= 1 - at `$.verdicts.rules`"),
        ({"dataset": {"recipe": {"side": 0}}}, "Expected `int` >= 1 - at `$.dataset.recipe.side`"),
    ],
)
def test_the_error_names_the_part(changes, said):
    with pytest.raises(UserError) as caught:
        make_record(**changes)
    assert str(caught.value).startswith("not a record of a run of version 3: ")
    assert said in str(caught.value)


def test_an_error_in_a_list_names_its_item():
    record = make_json()
    record["verdicts"]["rules"][0]["checks"][1]["required"] = "many"
    with pytest.raises(UserError, match=r"at `\$\.verdicts\.rules\[0\]\.checks\[1\]\.required`$"):
        read(record)


def test_what_is_beside_a_record_is_ignored():
    assert make_record(run_time=1.5, statistics={"mean": float("nan")}) == make_record()


def test_half_a_character_in_a_name_does_not_cost_the_record():
    """Python's JSON has it where the name of a file was not UTF-8."""
    setting = {"value": "caf\udce9.conf", "origin": "env"}
    record = make_record(settings={"ours": {"CK_LOADGEN_CONF_FILE": setting}})
    assert record.settings.ours["CK_LOADGEN_CONF_FILE"].value == "caf?.conf"
