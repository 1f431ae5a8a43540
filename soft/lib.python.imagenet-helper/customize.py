"""A helper library of this repository: its folder goes on PYTHONPATH."""

import os


def setup(i):
    customize = i["customize"]
    # full_path is <entry>/<library>/__init__.py
    site = os.path.dirname(os.path.dirname(customize["full_path"]))
    customize["python_site"] = site
    return {"return": 0, "bat": f"export PYTHONPATH={site}:${{PYTHONPATH}}\n"}
