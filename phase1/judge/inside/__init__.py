"""What runs inside the sandbox, and only there. These modules import nothing of ours but each other.

They are sent as source to be compiled by the interpreter in the sandbox, which may be older than the judge's, and every
module that they import is in memory at each fork. So they import little, `typing` not at all: types that only a checker
needs stand under `TYPE_CHECKING`, which is False here, and annotations are compiled without being evaluated.
"""
