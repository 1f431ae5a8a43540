def setup(i):
    customize = i["customize"]
    i["env"][customize["env_prefix"]] = customize["full_path"]
    return {"return": 0, "bat": ""}
