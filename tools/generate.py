"""Write what CK needs and nobody should type: images, alias files, enumerated variations.

    python tools/generate.py            write them
    python tools/generate.py --check    say what is not current, and exit with 1

Images: an entry of docker/ for each image of tools/docker/images.json, from the templates beside
it. `@name@` is a value; a line that starts with `@cpu:` or `@gpu:` is of one kind of image only.
`digest` in images.json is the base's, 'sha256:HEX', or empty where nobody has noted it.

Alias files: CK finds an entry by `<module>/.cm/alias-a-<alias>` (holding its UID) and
`alias-u-<UID>` (holding its alias). An entry's UID is the `backup_data_uid` of its
`.cm/info.json` where it has one, else derived from its name, so that it never changes.

Variations: CK knows no wildcards. A package's `enumerate` lists what to spell out:
{"prefix": "side.", "variable": "IMAGE_SIDE", "values": [192, 224]} becomes two variations,
`side.192` and `side.224`, that set IMAGE_SIDE (values may also be {tag: value}, and "ranges",
[first, last, step] each, adds numbers); variations that are under no prefix are kept.

Settings: the table of docs/settings.md, between its markers, from ck_mlperf.loadgen.settings.

Commands: the verbs in module/loadgen's meta.json, and their options in docs/commands.md, between
its markers, from the parsers in ck_mlperf.commands.

Schema: record.schema.json, from the types in ck_mlperf.results.record (schema.py).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
from schema import make_record_schema  # noqa: E402

from ck_mlperf.commands import CK_COMMAND, COMMAND, OWN_VERBS, VERBS, load_verb  # noqa: E402
from ck_mlperf.commands.parser import describe_value  # noqa: E402
from ck_mlperf.loadgen.settings import VARIABLES  # noqa: E402

# UIDs of CK 2.6.4's own modules.
MODULES = {
    "docker": "88eef0cd8c43b68a",
    "module": "032630d041b4fd8a",
    "os": "0440cb72c2bc5cc6",
    "package": "1dc07ee0f4742028",
    "program": "b0ac08fe1d3c2615",
    "script": "84e27ad9dd12e734",
    "soft": "5e1100048ab875d7",
}

# CK's docker module lets a failed command pass; ended by a signal, `ck` does not exit with 0.
DOCKER_CHECK = '|| { echo "error: docker\'s exit code is $?" >&2; kill $PPID; }'
DOCKER_IMAGE = "$#CK_DOCKER_ORGANIZATION#$/$#CK_DOCKER_NAME#$"
# CK appends the command once more, without quotes: to a comment.
DOCKER_RUN = (
    "--rm --env-file $#CK_PATH#$/env.list --user=$(id -u):1500 "
    f"{DOCKER_IMAGE} '$#COMMAND#$' {DOCKER_CHECK} #"
)
PROGRAM = "image-classification-tensorrt-loadgen-py"
ON_GPU = (
    " --env.CK_LOADGEN_SCENARIO=MultiStream --env.CK_LOADGEN_MULTISTREAMNESS=32"
    " --env.CK_BATCH_SIZE=32 --env.CK_LOADGEN_DATASET_SIZE=500 --env.CK_LOADGEN_BUFFER_SIZE=500"
    " --dep_add_tags.weights=model,tensorrt,resnet,converted-from-onnx,fp32,maxbatch.32"
)


def docker_values(name: str, image: dict[str, str]) -> dict[str, str]:
    """What the templates of an image name: the image's own values, and those made from them."""
    values = {"name": name, "image": DOCKER_IMAGE, "check": DOCKER_CHECK, **image}
    values |= pin_base(image["base"], image["digest"])
    command = f"ck run program:{PROGRAM} --skip_print_timers --env.CK_SILENT_MODE"
    command += " --env.CK_LOADGEN_MODE=AccuracyOnly"
    if "tensorrt" in image:
        values["major"] = image["tensorrt"].partition(".")[0]
        values["cuda_lock"] = f"cuda-{image['cuda'].partition('.')[0]}"
        command += ON_GPU
    log = f"$CK_REPOS/ck-mlperf/program/{PROGRAM}/tmp/mlperf_log_summary.txt"
    return values | {"command": f"{command} && cat {log}", "run": DOCKER_RUN}


def pin_base(base: str, digest: str) -> dict[str, str]:
    """The base by its digest; without one by its tag, and a line that says so."""
    if not digest:
        note = "The base is pinned by its tag alone: its digest is not in tools/docker/images.json."
        return {"pinned_base": base, "base_note": note}
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise SystemExit(f"error: images.json: digest {digest!r} of {base}: want sha256:HEX or ''")
    return {"pinned_base": f"{base}@{digest}", "base_note": "The base is pinned by its digest."}


def docker_entries() -> dict[Path, str]:
    """Every file of every image's entry."""
    files = {}
    folder = ROOT / "tools" / "docker"
    for name, image in json.loads((folder / "images.json").read_text()).items():
        values = docker_values(name, image)
        quoted = {key: json.dumps(value)[1:-1] for key, value in values.items()}
        entry = ROOT / "docker" / name
        for file in ("Dockerfile", "README.md", "env.list"):
            files[entry / file] = render(folder / file, values)
        files[entry / ".cm" / "meta.json"] = render(folder / "meta.json", quoted)
    return files


def render(template: Path, values: dict[str, str]) -> str:
    """The text of a template with its values in place, and the lines of this kind of image."""
    kind, other = ("gpu", "cpu") if "tensorrt" in values else ("cpu", "gpu")
    text = re.sub(rf"^@{other}:.*\n", "", template.read_text(), flags=re.MULTILINE)
    text = re.sub(rf"^@{kind}:", "", text, flags=re.MULTILINE)
    return re.sub(r"@([a-z_]+)@", lambda match: values[match[1]], text)


def read_uid(entry: Path) -> str:
    info = entry / ".cm" / "info.json"
    if info.exists():
        return str(json.loads(info.read_text())["backup_data_uid"])
    return hashlib.sha256(f"ck-mlperf:{entry.parent.name}:{entry.name}".encode()).hexdigest()[:16]


def alias_files(made: Iterable[Path]) -> dict[Path, str]:
    """Every alias file of the repository, and what it must hold. made: files made here."""
    files = {}
    for module, module_uid in MODULES.items():
        metas = {*ROOT.glob(f"{module}/*/.cm/meta.json")}
        metas |= {path for path in made if path.match(f"{module}/*/.cm/meta.json")}
        entries = sorted(meta.parent.parent for meta in metas)
        pairs = [(entry.parent / ".cm", entry.name, read_uid(entry)) for entry in entries]
        if entries:
            pairs.append((ROOT / ".cm", module, module_uid))
        for folder, alias, uid in pairs:
            files[folder / f"alias-a-{alias}"] = uid + "\n"
            files[folder / f"alias-u-{uid}"] = alias + "\n"
    return files


def enumerated_metas() -> dict[Path, str]:
    """Every package meta.json that has `enumerate`, with its variations spelt out."""
    files = {}
    for path in sorted(ROOT.glob("package/*/.cm/meta.json")):
        meta = json.loads(path.read_text())
        if "enumerate" not in meta:
            continue
        prefixes = tuple(rule["prefix"] for rule in meta["enumerate"])
        kept = {k: v for k, v in meta["variations"].items() if not k.startswith(prefixes)}
        for rule in meta["enumerate"]:
            values = rule["values"]
            if "ranges" in rule:
                spans = [range(first, last + 1, step) for first, last, step in rule["ranges"]]
                values = sorted({*values, *(value for span in spans for value in span)})
            pairs = values.items() if isinstance(values, dict) else [(v, v) for v in values]
            for tag, value in pairs:
                variation = {"extra_env": {rule["variable"]: str(value)}}
                if tag == rule.get("default"):
                    variation["on_by_default"] = "yes"
                kept[f"{rule['prefix']}{tag}"] = variation
        meta["variations"] = kept
        files[path] = json.dumps(meta, indent=2) + "\n"
    return files


def settings_page() -> dict[Path, str]:
    """docs/settings.md with the table of the settings between its markers."""
    lines = [
        "| variable | sets | unit | default | values |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| `{setting.name}` | {setting.full_help} | {setting.unit} | {setting.default} | "
            f"{setting.range} |"
            for setting in VARIABLES
        ),
    ]
    return fill_page("settings.md", "\n".join(lines))


def fill_page(name: str, text: str) -> dict[Path, str]:
    """A page of docs/ with `text` between its markers."""
    path = ROOT / "docs" / name
    marker, end = "<!-- by tools/generate.py -->", "<!-- end -->"
    before, _, rest = path.read_text().partition(marker)
    return {path: f"{before}{marker}\n\n{text}\n\n{end}{rest.partition(end)[2]}"}


def command_files() -> dict[Path, str]:
    """What is said of the verbs elsewhere than in their parsers."""
    path = ROOT / "module" / "loadgen" / ".cm" / "meta.json"
    meta = json.loads(path.read_text())
    meta["actions"] = {verb: {"desc": load_verb(verb).SUMMARY} for verb in VERBS}
    page = fill_page("commands.md", "\n\n".join(map(describe_verb, OWN_VERBS)))
    return page | {path: json.dumps(meta, indent=2) + "\n"}


def describe_verb(verb: str) -> str:
    """The section of a verb: what it does, its options, examples."""
    parser = load_verb(verb).make_parser()
    parser.prog = (CK_COMMAND if verb in VERBS else COMMAND).format(verb)
    rows = []
    for action in parser.arguments:
        name = action.option_strings[0] if action.option_strings else action.metavar
        value = describe_value(action) if action.option_strings else ""
        text = (action.help or "") % {"default": action.default}
        rows.append((f"{name}{value}".replace("|", "\\|"), text.replace("|", "\\|")))
    return "\n".join(
        [
            f"## {verb}",
            "",
            parser.description or "",
            "",
            "```text",
            *(f"{parser.prog} {example}".strip() for example in parser.examples),
            "```",
            "",
            "| option | what it does |",
            "| --- | --- |",
            *(f"| `{name}` | {text} |" for name, text in rows),
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say what is not current")
    check = parser.parse_args().check

    images = docker_entries()
    aliases = alias_files(images)
    wanted = images | aliases | enumerated_metas() | settings_page() | command_files()
    wanted[ROOT / "src/ck_mlperf/results/record.schema.json"] = make_record_schema()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    surplus = [
        path
        for folder in [ROOT, *(ROOT / module for module in MODULES)]
        for path in folder.glob(".cm/alias-*")
        if path not in aliases
    ]
    for path in stale + surplus:
        print(f"{'not current' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check and path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
        elif not check:
            path.unlink()
    if check and stale + surplus:
        print("run: python tools/generate.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
