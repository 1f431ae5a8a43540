"""LoadGen's C++ interface as a library, which tells its version."""

import ctypes


def setup(i):
    customize = i["customize"]
    library = ctypes.CDLL(customize["full_path"])
    library.ck_version.restype = ctypes.c_char_p
    customize["version"] = library.ck_version().decode()
    return {"return": 0, "bat": ""}
