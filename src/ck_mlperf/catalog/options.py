"""The options of a `ck` command, checked: CK ignores those that it does not know.

What CK knows is read from its own text: its documentation of the options is not complete.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ck_mlperf.catalog.kernel import Catalog, read_command_line
from ck_mlperf.catalog.plan import PlanChain
from ck_mlperf.common.suggest import find_nearest, suggest
from ck_mlperf.loadgen.settings import raise_problems

# How CK's text reads an option of its input, and how a docstring promises one.
_FORMS = ("i.get('{}'", "i['{}'", "(i, '{}'", " ({}) ")
RUN, INSTALL = ("program", "pipeline"), ("package", "env", "soft")
"""The modules that read the options of `ck run` and `ck benchmark`, and of `ck install`."""
# --FAMILY.NAME=VALUE
_FAMILIES = ("env", "deps", "dep_add_tags", "params")
_OF_DEPS = ("deps", "dep_add_tags")
_MOST_EDITS = 2  # and 1 in a word of three letters: they are all near each other
_BUILD = "TENSORRT_"


@dataclass(frozen=True)
class Known:
    """What CK itself reads. text: of its kernel and modules."""

    text: str

    def has_option(self, name: str) -> bool:
        return any(form.format(name) in self.text for form in _FORMS)

    def has_variable(self, name: str) -> bool:
        """Whether CK reads or sets a variable of --env."""
        return f"'{name}'" in self.text

    def list_options(self) -> set[str]:
        """All of them, for suggestions: that takes a moment."""
        forms = "|".join(re.escape(form).replace(r"\{\}", r"([\w-]+)") for form in _FORMS)
        return {name for names in re.findall(forms, self.text) for name in names if name}


def find_unknown_options(options: Iterable[str], deps: Collection[str], known: Known) -> list[str]:
    """A problem for each option that CK would ignore, though something is meant by it.

    deps: the keys of the program's dependencies. A word that is not near a known option passes.
    """
    problems = []
    for option in options:
        family, dot, name = option.partition(".")
        nearest = None
        if not dot and not known.has_option(option):
            most = _MOST_EDITS if len(option) > 3 else 1
            nearest = find_nearest(option, known.list_options(), most)
        elif dot and family not in _FAMILIES:
            nearest = find_nearest(family, _FAMILIES, len(option))
        elif family in _OF_DEPS and name not in deps:
            problems.append(f"--{option}: no such dependency{suggest(name, deps, cutoff=0)}")
        if nearest:
            problems.append(f"--{option}: no such option; did you mean --{nearest}{dot}{name}?")
    return problems


def read_build_variables(catalog: Catalog) -> Collection[str]:
    """The variables of the package that builds plans: the only ones that begin like these."""
    install_env: Mapping[str, str] = catalog.load_package(PlanChain.package).meta["customize"][
        "install_env"
    ]
    return [name for name in install_env if name.startswith(_BUILD)]


def find_build_variables(environment: Mapping[str, str], known: Collection[str]) -> list[str]:
    """A problem for each variable of a plan's build: a run reads none."""
    return [
        f"{name}: a run does not read it. Build the plan with it: ck install "
        f"package:{PlanChain.package} --tags=... --env.{name}={environment[name]}"
        if name in known
        else f"{name}: no such variable{suggest(name, known, cutoff=0)}"
        for name in sorted(environment)
        if name.startswith(_BUILD)
    ]


def check_install(catalog: Catalog, arguments: Sequence[str], environment: Collection[str]) -> None:
    """Raise UserError where `ck install` was given what neither CK nor a package reads.

    environment: names of the installation's variables: what a package installs for itself gets
    none of the command line.
    """
    if arguments[1:2] != ["install"]:
        return
    options = read_command_line(arguments)
    known = Known(catalog.read_sources(INSTALL))
    problems = find_unknown_options(options, catalog.list_dep_keys(), known)
    build = read_build_variables(catalog)
    given = {option.removeprefix("env.") for option in options}
    problems += [
        f"{name}: no package reads such a variable{suggest(name, build)}"
        for name in sorted(given & set(environment) - set(build))
        if name.startswith((_BUILD, "CK_"))
    ]
    raise_problems(problems)
