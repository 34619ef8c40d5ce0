from pathlib import Path

from datamill import imports


def names(module):
    return {file.name for file in imports.closure(module)}


def test_the_closure_reaches_what_is_imported_indirectly():
    package = Path(imports.__file__).parent
    found = {str(file.relative_to(package)) for file in imports.closure("datamill.reading")}
    parts = {f"parts/{name}.py" for name in ("__init__", "manifest", "parquet", "reading", "writing")}
    assert found == {"reading.py", "ledger.py", "files.py", "samples.py", "errors.py", *parts}


def test_imports_inside_functions_count():
    assert {"image.py", "tabular.py"} <= names("datamill.modalities")


def test_declarations_do_not_count():
    assert not {"catalog.py", "stage.py"} & names("datamill.execute")


def test_from_imports_give_module_and_member():
    source = "import a.b\nfrom c import d\ndef f():\n    from . import e\n    from .g import h\n    from ..i import j\n"
    found = set(imports.imported_names(source, package="p.q"))
    assert found == {"a.b", "c", "c.d", "p.q", "p.q.e", "p.q.g", "p.q.g.h", "p.i", "p.i.j"}


def test_imports_count_wherever_a_statement_can_stand():
    source = """
class A:
    async def f(self):
        async with x: import a
        for _ in y: import b
        else: import c
        while z: import d
try: import e
except OSError: import f
else: import g
finally: import h
match x:
    case 1: import i
    case _ if x: import j
if x: pass
elif y: import k
else: import l
"""
    assert sorted(imports.imported_names(source, package="p")) == list("abcdefghijkl")


def test_the_digest_changes_with_the_code(monkeypatch, tmp_path):
    before = imports.digest("datamill.reading")
    changed = tmp_path / "datamill" / "reading.py"
    changed.parent.mkdir()
    files = imports.closure("datamill.reading")
    changed.write_text("# other code\n")
    monkeypatch.setattr(imports, "closure", lambda module: (changed, *files[1:]))
    assert imports.digest("datamill.reading") != before


def test_foreign_modules_are_no_code_of_ours():
    assert imports.module_file("numpy") is None
    assert imports.module_file("datamill.parts") == Path(imports.__file__).parent / "parts" / "__init__.py"
