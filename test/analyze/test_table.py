import csv
import dataclasses
import statistics
from datetime import datetime, timezone

import duckdb
import pytest

from ck_mlperf.analyze.runs import CONFIGURATION, column_names, group_points
from ck_mlperf.analyze.table import FORMATS, export, make_table, query
from ck_mlperf.common.errors import UserError


def test_every_run_is_a_row_with_its_columns(row):
    run = row(rules_met=None, disturbances=("heat", "steal; 'quoted', text"), devices=2**40)
    answer = query([run], "SELECT * FROM runs")
    assert answer.columns == column_names()
    (found,) = answer.rows
    wanted = dataclasses.asdict(run) | {"start": run.start.replace(tzinfo=None)}
    assert dict(zip(answer.columns, found, strict=True)) == {
        name: list(value) if isinstance(value, tuple) else value for name, value in wanted.items()
    }


def test_types_and_comments_of_the_columns(row):
    with make_table([row()]) as connection:
        columns = {
            name: (type_, comment)
            for name, type_, comment in connection.execute(
                "SELECT column_name, data_type, comment FROM duckdb_columns() "
                "WHERE table_name = 'runs'"
            ).fetchall()
        }
    assert columns["start"] == ("TIMESTAMP", "When the test began, in UTC.")
    assert columns["batch"] == ("BIGINT", "The most samples that the engine got at once.")
    assert columns["latency_p99_ns"] == ("DOUBLE", None)
    assert columns["loadgen_valid"] == ("BOOLEAN", "LoadGen's own verdict.")
    assert columns["disturbances"][0] == "VARCHAR[]"


def test_points_are_those_that_the_other_commands_show(row):
    runs = [
        row(samples_per_second=100.0, latency_p99_ns=5, loadgen_valid=True, rules_met=True),
        row(samples_per_second=110.0, latency_p99_ns=9, loadgen_valid=False, rules_met=True),
        row(samples_per_second=102.0, latency_p99_ns=6, loadgen_valid=True, rules_met=False),
        row(batch=8, gpu="RTX", samples_per_second=50.0, disturbances=("heat",)),
        row(mode="AccuracyOnly", samples_per_second=None, top1_percent=75.5, loadgen_valid=None),
        row(mode="FindPeakPerformance", samples_per_second=900.0, top1_percent=None),
        row(compliance="TEST04", samples_per_second=900.0, top1_percent=None),
        row(model_sha256="f" * 64, batch=3, samples_per_second=7.0, top1_percent=None),
        row(error="it broke", samples_per_second=None, top1_percent=None),
    ]
    points = group_points(runs)
    answer = query(runs, "SELECT * FROM points")
    found = [dict(zip(answer.columns, values, strict=True)) for values in answer.rows]
    assert [{name: point[name] for name in CONFIGURATION} for point in found] == [
        point.configuration for point in points
    ]
    for name in ("samples_per_second", "latency_p99_ns"):
        assert [point[name] for point in found] == [
            statistics.median(getattr(run, name) for run in point.runs) for point in points
        ]
    assert [point["n"] for point in found] == [3, 1, 1]
    assert [point["top1_percent"] for point in found] == [
        point.accuracy and point.accuracy.top1_percent for point in points
    ]
    assert [point["top1_percent"] for point in found] == [75.5, 75.5, None]
    first = found[0]
    assert (first["n_loadgen_valid"], first["rules_met"]) == (2, False)
    assert first["samples_per_second_spread"] == pytest.approx(10 / 102)
    assert first["latency_p99_ns_spread"] == pytest.approx(4 / 6)
    assert [point["n_disturbed"] for point in found] == [0, 1, 0]


def test_no_runs_are_an_empty_table():
    assert query([], "SELECT count(*) FROM runs").rows == [(0,)]
    assert query([], "SELECT * FROM points").rows == []


@pytest.mark.parametrize("sql", ["DESCRIBE runs", "SUMMARIZE runs", "FROM points", "TABLE runs"])
def test_what_else_answers_is_a_select_too(row, sql):
    assert query([row()], sql).rows


SECRET = "secret.csv"
HOSTILE = [
    "SELECT * FROM read_csv('{folder}/secret.csv')",
    "SELECT * FROM read_text('{folder}/secret.csv')",
    "SELECT * FROM '{folder}/secret.csv'",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM runs, lateral (SELECT * FROM read_blob('{folder}/secret.csv'))",
    "SELECT * FROM sniff_csv('{folder}/secret.csv')",
    "SELECT * FROM query('COPY runs TO ''{folder}/new.csv''')",
    "SELECT * FROM query('SELECT * FROM ''{folder}/secret.csv''')",
    "COPY runs TO '{folder}/new.csv'",
    "COPY (SELECT 1) TO '{folder}/new.csv'",
    "ATTACH '{folder}/new.duckdb' AS other",
    "EXPORT DATABASE '{folder}/new'",
    "CREATE TABLE more AS SELECT 1",
    "DROP TABLE runs",
    "SET enable_external_access = true",
    "PRAGMA enable_profiling",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SELECT 1; COPY runs TO '{folder}/new.csv'",
    "SELECT 1) TO '{folder}/new.csv'; --",
    "SELECT * FROM local_of_a_test",
    "SELECT * FROM HOSTILE",
    "SELECT * FROM point",
    "SELEC",
    "SELECT 1 / 'a'",
    "SELECT error('stop')",
    "",
    "--",
    "\0",
]


@pytest.mark.parametrize("sql", HOSTILE)
@pytest.mark.parametrize("name", [None, "out.csv", "out.parquet"])
def test_sql_reaches_nothing_but_the_table(row, tmp_path, sql, name):
    local_of_a_test = {"column": [1]}
    assert local_of_a_test
    (tmp_path / SECRET).write_text("word\nsesame\n")
    asked = sql.format(folder=tmp_path)
    with pytest.raises(UserError) as caught:
        query([row()], asked) if name is None else export([row()], tmp_path / name, asked)
    assert "sesame" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [SECRET]


def test_duckdb_says_what_is_wrong_with_the_sql(row):
    with pytest.raises(UserError, match=r'--query: Binder Error: [^$]*"batches"[^$]*batch'):
        query([row()], "SELECT batches FROM runs")


def read(path, sql):
    with duckdb.connect(path) if path.suffix == ".duckdb" else duckdb.connect() as connection:
        return connection.execute(sql.format(path=path)).fetchall()


def test_a_duckdb_file_has_the_table_with_its_comments_and_the_points(row, tmp_path):
    path = tmp_path / "it's.duckdb"
    export([row(), row(batch=8)], path)
    assert read(path, "SELECT batch FROM runs ORDER BY batch") == [(8,), (32,)]
    assert read(path, "SELECT n FROM points") == [(1,), (1,)]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["it's.csv", "it's.parquet"])
def test_csv_and_parquet_have_every_row_and_column(row, tmp_path, name):
    path = tmp_path / name
    runs = [row(experiment="with, comma\nand line"), row(error='"quoted"')]
    export(runs, path)
    with duckdb.connect() as connection:
        relation = (
            connection.from_parquet if path.suffix == ".parquet" else connection.from_csv_auto
        )
        found = relation(str(path))
        assert tuple(found.columns) == column_names()
        rows = found.fetchall()
    assert [values[0] for values in rows] == [run.experiment for run in runs]
    index = column_names().index("start")
    assert rows[0][index] == runs[0].start.replace(tzinfo=None)


def test_the_answer_to_a_query_is_exported(row, tmp_path):
    path = tmp_path / "points.csv"
    export([row(batch=8), row(batch=8)], path, "SELECT batch, n FROM points")
    assert read_csv(path) == [["batch", "n"], ["8", "2"]]


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_no_text_of_a_csv_is_a_formula(row, tmp_path, text):
    path = tmp_path / "runs.csv"
    export([row(model=text, worst_margin=-0.5, disturbances=(text,))], path)
    header, values = read_csv(path)
    found = dict(zip(header, values, strict=True))
    assert found["model"] == f"'{text}"
    assert found["worst_margin"] == "-0.5"
    assert found["disturbances"].startswith("[")
    assert found["gpu"] == ""


def test_no_answer_to_a_query_is_a_formula(row, tmp_path):
    path = tmp_path / "runs.csv"
    kinds = {
        "varchar": "'=1'",
        "=head": "'a=1'",
        "blob": "'=1'::BLOB",
        "union": "union_value(a := '=1')",
        "enum": "'=1'::ENUM('=1')",
        'qu"ote': "-1::HUGEINT",
        "decimal": "-1.50",
        "nothing": "NULL",
        "order": "batch",
    }
    quoted = ", ".join(
        '{} AS "{}"'.format(sql, name.replace('"', '""')) for name, sql in kinds.items()
    )
    export(
        [row(batch=batch) for batch in (1, 3, 2)],
        path,
        f"SELECT {quoted} FROM runs ORDER BY batch DESC",
    )
    header, *rows = read_csv(path)
    assert header == ["varchar", "'=head", *list(kinds)[2:]]
    assert rows == [
        ["'=1", "a=1", "'=1", "'=1", "'=1", "-1", "-1.50", "", batch] for batch in ("3", "2", "1")
    ]


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_export_takes_the_place_of_an_older_one(row, tmp_path, suffix):
    path = tmp_path / f"runs{suffix}"
    path.write_text("older, and no table")
    export([row()], path)
    assert path.stat().st_size > 100
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o444 == 0o444


@pytest.mark.parametrize(
    ("name", "sql", "said"),
    [
        ("runs.xlsx", None, "want a name that ends in .csv, .parquet, .duckdb"),
        ("runs", None, "want a name that ends in"),
        ("runs.duckdb", "SELECT 1", "leave out --query"),
    ],
)
def test_what_cannot_be_exported_leaves_what_was_there(row, tmp_path, name, sql, said):
    path = tmp_path / name
    path.write_text("older")
    with pytest.raises(UserError, match=said):
        export([row()], path, sql)
    assert path.read_text() == "older"


def test_a_folder_that_is_not_there(row, tmp_path):
    with pytest.raises(FileNotFoundError):
        export([row()], tmp_path / "none" / "runs.csv")


def test_times_of_other_zones_are_in_utc(row):
    start = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
    assert query([row(start=start)], "SELECT start FROM runs").rows == [(datetime(2026, 3, 1, 12),)]
