"""A Python library: its site folder goes on PYTHONPATH (empty where the interpreter has it)."""


def setup(i):
    customize = i["customize"]
    customize["python_site"] = customize["full_path"]
    return {
        "return": 0,
        "bat": "export PYTHONPATH=${{PYTHONPATH}}:{}\n".format(customize["full_path"]),
    }
