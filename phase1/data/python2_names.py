"""What Python 2 has and no Python 3 ever had, and a quick look at whether a program mentions any of it.

What some Python 3 had and later ones lack (time.clock, fractions.gcd, collections.Iterable) is not here: such a program
is an old Python 3 program. tests/data/test_python2.py holds every entry against the running interpreter.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NAMES = _words(
    "raw_input xrange unicode unichr basestring cmp long reduce execfile file apply coerce intern reload StandardError"
)

MODULES = _words(
    "__builtin__ future_builtins Queue StringIO cStringIO cPickle urllib2 urlparse httplib ConfigParser HTMLParser "
    "htmlentitydefs Tkinter tkMessageBox SocketServer BaseHTTPServer SimpleHTTPServer CGIHTTPServer Cookie cookielib "
    "xmlrpclib copy_reg thread dummy_thread sets md5 sha UserDict UserList UserString exceptions commands anydbm "
    "dbhash whichdb robotparser mutex popen2 psyco"
)

MODULE_ATTRIBUTES: dict[str, frozenset[str]] = {
    "itertools": _words("izip imap ifilter izip_longest ifilterfalse"),
    "string": _words(
        "maketrans letters lowercase uppercase join joinfields split splitfields rsplit lower upper swapcase "
        "capitalize strip lstrip rstrip find rfind index rindex count replace translate atoi atol atof zfill ljust "
        "rjust center expandtabs"
    ),
    "sys": _words("maxint setdefaultencoding exc_clear exc_type exc_value"),
    "os": _words("getcwdu popen2 popen3 popen4 tmpnam tempnam"),
    "operator": _words("div idiv isCallable sequenceIncludes isSequenceType isNumberType isMappingType repeat"),
    "types": _words(
        "StringType StringTypes UnicodeType IntType LongType FloatType ListType TupleType DictType BooleanType "
        "ClassType InstanceType FileType ObjectType SliceType XRangeType"
    ),
    "urllib": _words("urlopen urlencode quote unquote quote_plus unquote_plus urlretrieve"),
    "builtins": NAMES,
}

# Of a dict, whatever the object is called; `next` counts only where it is called without arguments (iterators).
METHODS = _words("iteritems itervalues iterkeys has_key viewitems viewkeys viewvalues")

# Methods of a list that what map, filter, zip and dict.keys give in Python 3 lacks.
LIST_METHODS = _words("sort append extend insert pop remove reverse index count")
ITERATORS = frozenset(("map", "filter", "zip"))  # a list in Python 2
VIEWS = frozenset(("keys", "values", "items"))

# Words without which no use of the tables above is possible; where attributes are common words, their module's name.
_MENTIONS = (
    NAMES
    | MODULES
    | METHODS
    | MODULE_ATTRIBUTES["itertools"]
    | frozenset(("string", "operator", "types", "urllib", "__cmp__"))
    | MODULE_ATTRIBUTES["sys"]
    | MODULE_ATTRIBUTES["os"]
)
_WORD = re.compile(r"[A-Za-z_]\w*")
# The rest is told by its form: what a list has and an iterator lacks, the print statement, comparison functions. A
# pattern is looked for where its word stands, and begins with fixed letters: one for all would take ten times as long.
_CALL = r"[ \t]*\([^()]*(?:\([^()]*\)[^()]*)*\)[ \t]*"  # of arguments with calls of one level in them
_ASSIGNED = r"\n[ \t]*\w+[ \t]*=[ \t]*"
_FORMS: dict[str, list[re.Pattern[str]]] = {
    "next": [re.compile(r"next[ \t]*\([ \t]*\)")],
    **{
        word: [
            re.compile(f"{begin}{word}\\b")
            for begin in (_ASSIGNED, r"\)[ \t]*,[ \t]*", r"\+[ \t]*", r"len[ \t]*\([ \t]*")
        ]
        + [re.compile(rf"{word}{_CALL}(?:\.[ \t]*\w|[+\[])")]
        for word in ITERATORS
    },
    **{word: [re.compile(rf"{word}[ \t]*\([ \t]*\)[ \t]*(?:$|[;#\[.+])", re.MULTILINE)] for word in VIEWS},
    "range": [re.compile(r"\+[ \t]*range\b"), re.compile(rf"range{_CALL}\+")],
    "print": [re.compile(r"print[ \t]*>>"), re.compile(rf"print{_CALL}[.%+\[]".replace("[^()]", r"[^()\n]"))],
    "sort": [re.compile(r"sort[ \t]*\([ \t]*(?:lambda|\w+[ \t]*\))")],
    "sorted": [re.compile(r"sorted[ \t]*\([^=\n]{0,200},[ \t]*(?:lambda|\w+[ \t]*\))")],
}


def mentions_python2(code: str) -> bool:
    """Whether a closer look is worth its time.

    False is sure, but for rare forms of what only a list can do; True often means nothing.
    """
    words = set(_WORD.findall(code))
    if not _MENTIONS.isdisjoint(words):
        return True
    code = "\n" + code
    return any(form.search(code) for word in _FORMS.keys() & words for form in _FORMS[word])
