"""The runs as a table of DuckDB: `runs`, a row each, and `points`, a row per configuration."""

from __future__ import annotations

import os
import re
import tempfile
import typing
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import numpy as np

from ck_mlperf.analyze.runs import CONFIGURATION, NETWORK, Run, column_names
from ck_mlperf.common.docstrings import read_field_docs
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import sync_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

# DuckDB's type, and that of the array it is filled from; by the first type of a column's hint.
_TYPES: dict[Any, tuple[str, Any]] = {
    str: ("VARCHAR", object),
    int: ("BIGINT", object),
    float: ("DOUBLE", np.float64),
    bool: ("BOOLEAN", object),
    datetime: ("TIMESTAMP", "datetime64[us]"),
    tuple: ("VARCHAR[]", object),
}
_NUMBERS = {
    *("tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "usmallint", "uinteger"),
    *("ubigint", "uhugeint", "float", "double", "decimal", "boolean"),
}
_FORMULA = r"^([-=+@\t\r\n])"
FORMATS = (".csv", ".parquet", ".duckdb")

_MEDIANS = (
    "samples_per_second",
    "queries_per_second",
    "latency_p50_ns",
    "latency_p90_ns",
    "latency_p99_ns",
)
_SPREADS = ("samples_per_second", "latency_p90_ns", "latency_p99_ns")


class Answer(NamedTuple):
    """What a query gave."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def make_table(runs: Sequence[Run], database: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A database with `runs` and `points`; in memory, or in the new file `database`.

    It reads no variable of Python. Column comments say what `Run` says of its fields.
    """
    connection = duckdb.connect(str(database or ":memory:"))
    connection.execute("SET python_enable_replacements = false")
    columns = ", ".join(f"{name} {type_}" for name, (type_, _) in _COLUMNS.items())
    connection.execute(f"CREATE TABLE runs ({columns})")
    for name, text in read_field_docs(Run).items():
        quoted = text.replace("'", "''")
        connection.execute(f"COMMENT ON COLUMN runs.{name} IS '{quoted}'")
    if runs:
        connection.register("arrays", {name: _make_array(runs, name) for name in _COLUMNS})
        connection.execute("INSERT INTO runs SELECT * FROM arrays")
        connection.unregister("arrays")
    connection.execute(_POINTS)
    return connection


def query(runs: Sequence[Run], sql: str) -> Answer:
    """The answer to one SELECT (or DESCRIBE, SUMMARIZE), which reaches nothing but the table.

    Raises UserError with what DuckDB says where the SQL is wrong or asks for more.
    """
    with make_table(runs) as connection:
        result = _select(connection, sql)
        try:
            return Answer(tuple(result.columns), result.fetchall())
        except duckdb.Error as error:
            raise UserError(f"--query: {error}") from error


def export(runs: Sequence[Run], path: Path, sql: str | None = None) -> None:
    """Write `path` so that it holds all or what it held before: .csv, .parquet or .duckdb.

    The first two have the table `runs`, or the answer to `sql`; a .duckdb file has `runs` and
    `points`. Text in a .csv that a spreadsheet would take for a formula begins with an apostrophe.
    Raises UserError for another ending, SQL for a .duckdb file, or wrong SQL.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: want a name that ends in {', '.join(FORMATS)}")
    if path.suffix == ".duckdb" and sql is not None:
        raise UserError(f"{path}: a .duckdb file has the whole table: leave out --query")
    # In a folder of its own: DuckDB writes other files beside a database.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder, f"table{path.suffix}").resolve()
        if path.suffix == ".duckdb":
            make_table(runs, temporary).close()
        else:
            with make_table(runs) as connection:
                selected = "SELECT * FROM runs" if sql is None else sql
                _write(_select(connection, selected, temporary), temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    sync_folder(path.parent)


def _write(result: duckdb.DuckDBPyRelation, path: Path) -> None:
    try:
        if path.suffix == ".csv":
            _neutralise(result).write_csv(str(path))
        else:
            result.write_parquet(str(path))
    except duckdb.Error as error:
        raise UserError(f"{path.suffix[1:]} file: {error}") from error


def _neutralise(result: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """The same, with an apostrophe before what a spreadsheet would compute; numbers stay numbers.

    The characters: https://owasp.org/www-community/attacks/CSV_Injection.
    """
    columns = []
    for number, (name, type_) in enumerate(zip(result.columns, result.types, strict=True), 1):
        value = f"#{number}"
        if type_.id not in _NUMBERS:
            value = f"regexp_replace({value}::VARCHAR, '{_FORMULA}', '''\\1')"
        title = re.sub(_FORMULA, r"'\1", name).replace('"', '""')
        columns.append(f'{value} AS "{title}"')
    return result.project(", ".join(columns))


def _select(
    connection: duckdb.DuckDBPyConnection, sql: str, output: Path | None = None
) -> duckdb.DuckDBPyRelation:
    """Shut the connection in, and prepare `sql`. output: the one file that may be written."""
    if output:
        connection.execute("SET allowed_paths = [$path]", {"path": str(output)})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    try:
        statements = connection.extract_statements(sql)
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise UserError("--query: want one SELECT; the tables are runs and points")
        return connection.sql(sql)
    except duckdb.Error as error:
        raise UserError(f"--query: {error}") from error


def _make_array(runs: Sequence[Run], name: str) -> NDArray[Any]:
    type_, dtype = _COLUMNS[name]
    values = [getattr(run, name) for run in runs]
    if type_ == "TIMESTAMP":  # numpy has no time zones; these are in UTC
        values = [None if value is None else value.replace(tzinfo=None) for value in values]
    if type_ == "VARCHAR[]":
        values = [list(value) for value in values]
    if dtype is object:  # np.array would make lists of one length a dimension
        return np.fromiter(values, object, len(values))
    return np.array(values, dtype)


def _list_columns() -> dict[str, tuple[str, Any]]:
    hints = typing.get_type_hints(Run)
    columns = {}
    for name in column_names():
        hint = hints[name]
        first = typing.get_origin(hint) if typing.get_origin(hint) is tuple else None
        columns[name] = _TYPES[first or (typing.get_args(hint) or (hint,))[0]]
    return columns


_COLUMNS = _list_columns()

_POINTS = f"""
CREATE VIEW points AS
WITH performance AS (
    SELECT * FROM runs
    WHERE samples_per_second IS NOT NULL AND mode <> 'FindPeakPerformance'
        AND compliance IS NULL
), accuracy AS (
    SELECT {", ".join(NETWORK)}, arg_max(top1_percent, start) AS top1_percent
    FROM runs WHERE top1_percent IS NOT NULL GROUP BY {", ".join(NETWORK)}
), point AS (
    SELECT {", ".join(CONFIGURATION)},
        count(*) AS n,
        min(start) AS start,
        count(*) FILTER (loadgen_valid) AS n_loadgen_valid,
        any_value(rules) AS rules,
        bool_and(rules_met) AS rules_met,
        any_value(unofficial) AS unofficial,
        arg_min(worst_check, worst_margin) AS worst_check,
        min(worst_margin) AS worst_margin,
        max(latency_bound_ms) AS latency_bound_ms,
        {", ".join(f"median({name}) AS {name}" for name in _MEDIANS)},
        {
    ", ".join(f"(max({name}) - min({name})) / median({name}) AS {name}_spread" for name in _SPREADS)
},
        count(*) FILTER (len(disturbances) > 0) AS n_disturbed
    FROM performance GROUP BY {", ".join(CONFIGURATION)}
)
SELECT point.*, accuracy.top1_percent FROM point LEFT JOIN accuracy ON
    {" AND ".join(f"point.{name} IS NOT DISTINCT FROM accuracy.{name}" for name in NETWORK)}
ORDER BY start
"""
