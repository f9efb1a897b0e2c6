"""Main guards that stand behind the solutions of assert tasks, where nothing of them may run."""

GUARDS = {
    "sys.exit(main())": "import sys\ndef main():\n    return 0\nif __name__ == '__main__':\n    sys.exit(main())\n",
    "unittest.main()": (
        "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertTrue(False)\nif "
        "__name__ == '__main__':\n    unittest.main()\n"
    ),
    "reads its input": "if __name__ == '__main__':\n    n = int(input())\n    print(n)\n",
    "the other way round": "if '__main__' == __name__:\n    raise SystemExit('not a script')\n",
    "argparse": "import argparse\nif __name__ in ('__main__',):\n    argparse.ArgumentParser().parse_args(['--no'])\n",
    "doctest": "if __name__ == '__main__':\n    import doctest\n    doctest.testmod(raise_on_error=True)\n    1 / 0\n",
}
