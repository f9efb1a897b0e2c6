"""Checkers of both protocols for problems with many right answers, five right outputs and five wrong ones each."""

from __future__ import annotations

from dataclasses import dataclass

# A Python checker is called with the paths of input, expected and actual output; a C++ one, as testlib's, with those of
# input, actual and expected output.
_PYTHON = """\
import sys
def main(given, expected, output):
    try:
        print(1 if right(given.split(), expected.split(), output.split()) else 0)
    except (ValueError, IndexError):
        print(0)  # no number, or too few
def right(given, expected, output):
    {right}
main(*(open(path).read() for path in sys.argv[1:4]))
"""
_CPP = """\
#include <algorithm>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>
using namespace std;
typedef long long ll;
static vector<ll> numbers(const char* path) {{
    ifstream file(path);
    vector<ll> found;
    string token;
    while (file >> token) {{
        size_t used = 0;
        ll value = 0;
        try {{ value = stoll(token, &used); }} catch (...) {{ used = 0; }}
        if (used != token.size()) {{ cerr << "wrong output format " << token << endl; exit(2); }}
        found.push_back(value);
    }}
    return found;
}}
static bool right(const vector<ll>& given, const vector<ll>& output, const vector<ll>& expected) {{
    {right}
}}
int main(int, char** argv) {{
    vector<ll> given = numbers(argv[1]), output = numbers(argv[2]), expected = numbers(argv[3]);
    bool ok = right(given, output, expected);
    cerr << (ok ? "ok" : "wrong answer") << endl;
    return ok ? 0 : 1;
}}
"""


@dataclass(frozen=True)
class Many:
    """A problem with many right answers, all of whose numbers are integers.

    Attributes:
        given: its input.
        expected: the recorded answer.
        python, cpp: the body of `right`, which both checkers ask.
        right, wrong: outputs.
    """

    given: str
    expected: str
    python: str
    cpp: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]

    def checker(self, kind: str) -> dict[str, str]:
        """The `checker` of its test_cases."""
        source = _PYTHON.format(right=self.python) if kind == "python" else _CPP.format(right=self.cpp)
        return {"kind": kind, "source": source}


MANY = {
    "two numbers of a sum": Many(
        "10",
        "1 9",
        "a, b = map(int, output); return a + b == int(given[0])",
        "return output.size() == 2 && output[0] + output[1] == given[0];",
        ("1 9", "9 1", "5 5", "0\n10\n", "-3 13"),
        ("1 8", "10", "1 2 7", "", "x y"),
    ),
    "a divisor": Many(
        "12",
        "2",
        "[d] = map(int, output); return 1 < d < 12 and 12 % d == 0",
        "return output.size() == 1 && output[0] > 1 && output[0] < 12 && 12 % output[0] == 0;",
        ("2", "3", "4", "6", " 6 \n\n"),
        ("5", "1", "12", "0", "2 3"),
    ),
    "a permutation": Many(
        "3",
        "1 2 3",
        "return sorted(map(int, output)) == [1, 2, 3]",
        "vector<ll> o = output; sort(o.begin(), o.end()); return o == vector<ll>{1, 2, 3};",
        ("1 2 3", "3 2 1", "2\n3\n1", "1 3 2", "2 1 3"),
        ("1 2 2", "1 2", "1 2 3 4", "0 1 2", "a b c"),
    ),
    "a number above": Many(
        "100",
        "101",
        "[x] = map(int, output); return x > int(given[0])",
        "return output.size() == 1 && output[0] > given[0];",
        ("101", "102", "1000", "999999999999", "+150"),
        ("100", "99", "-101", "101 102", "1e3"),
    ),
    "no two equal neighbours": Many(
        "4",
        "0 1 0 1",
        "x = [int(t) for t in output]; return len(x) == 4 and all(a != b for a, b in zip(x, x[1:]))",
        "if (output.size() != 4) return false; for (int i = 0; i < 3; i++) if (output[i] == output[i + 1]) return "
        "false; return true;",
        ("0 1 0 1", "1 0 1 0", "1 2 3 4", "5 6 5 6", "9 8 9 7"),
        ("0 0 1 1", "0 1 0", "1 2 2 1", "0 1 0 1 0", "no"),
    ),
    "a subset of a sum": Many(
        "1 2 3 4 5",
        "2\n1 4",
        "n, *x = map(int, output); return n == len(x) == len(set(x)) and set(x) <= {1, 2, 3, 4, 5} and sum(x) == 5",
        "if (output.empty() || output[0] + 1 != (ll)output.size()) return false; vector<ll> x(output.begin() + 1, "
        "output.end()); sort(x.begin(), x.end()); ll sum = 0; for (size_t i = 0; i < x.size(); i++) { if (x[i] < 1 || "
        "x[i] > 5 || (i && x[i] == x[i - 1])) return false; sum += x[i]; } return sum == 5;",
        ("2\n1 4", "1\n5", "2\n4 1", "2\n2 3", "2\n3 2"),
        ("2\n1 5", "2\n1 4 4", "3\n1 1 3", "0", "1\n6"),
    ),
    "a path": Many(
        "4 4\n1 2\n2 4\n1 3\n3 4",
        "1 2 4",
        "x = [int(t) for t in output]; e = {(1, 2), (2, 4), (1, 3), (3, 4)}; e |= {(b, a) for a, b in e}; "
        "return x[0] == 1 and x[-1] == 4 and all(p in e for p in zip(x, x[1:]))",
        "vector<vector<ll>> e = {{1, 2}, {2, 4}, {1, 3}, {3, 4}, {2, 1}, {4, 2}, {3, 1}, {4, 3}}; if (output.empty() "
        "|| output[0] != 1 || output.back() != 4) return false; for (size_t i = 0; i + 1 < output.size(); i++) if "
        "(find(e.begin(), e.end(), vector<ll>{output[i], output[i + 1]}) == e.end()) return false; return true;",
        ("1 2 4", "1 3 4", "1 2 1 3 4", "1\n3\n4", "1 2 4 3 4"),
        ("1 4", "2 4", "1 2", "", "1 2 3 4"),
    ),
    "a multiple": Many(
        "7",
        "7",
        "[x] = map(int, output); return x > 0 and x % 7 == 0",
        "return output.size() == 1 && output[0] > 0 && output[0] % 7 == 0;",
        ("7", "14", "21", "7000", "0007"),
        ("8", "0", "-7", "7.0", "7 7"),
    ),
    "as good as the jury": Many(
        "5",
        "3",
        "[x] = map(int, output); return x >= int(expected[0])",
        "return output.size() == 1 && output[0] >= expected[0];",
        ("3", "4", "5", "33", "3\n"),
        ("2", "0", "-3", "three", "3 3"),
    ),
    "two that differ by": Many(
        "4",
        "0 4",
        "a, b = map(int, output); return abs(a - b) == int(given[0])",
        "return output.size() == 2 && abs(output[0] - output[1]) == given[0];",
        ("0 4", "4 0", "-2 2", "100 96", "1\n5"),
        ("4 4", "0 5", "4", "0 4 0", "a b"),
    ),
}
SUM_PYTHON = MANY["two numbers of a sum"].checker("python")["source"]
SUM_CPP = MANY["two numbers of a sum"].checker("testlib")["source"]
