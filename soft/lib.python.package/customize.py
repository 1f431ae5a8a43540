"""A Python library: its site folder goes on PYTHONPATH (empty where the interpreter has it)."""


def setup(i):
    customize = i["customize"]
    customize["python_site"] = customize["full_path"]
    if "tensorrt" in i["tags"]:  # which of its versions, as the tags of a plan name it
        major = f"tensorrt-{customize['version'].partition('.')[0]}"
        i["tags"].extend({major} - set(i["tags"]))
    return {
        "return": 0,
        "bat": "export PYTHONPATH=${{PYTHONPATH}}:{}\n".format(customize["full_path"]),
    }
