"""The emitted tree: the same bytes for the same program, no text of the user's in the wrong place, CMake builds it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pto_wsp import (
    DenseDyn,
    DispatchPolicy,
    DType,
    In,
    Out,
    P,
    Ragged,
    Scalar,
    Symbol,
    Tensor,
    Tile,
    TimingPolicy,
    kernel,
    pto,
    workload,
)
from pto_wsp.ascend import folder, host
from pto_wsp.ascend.build import _machine, compiler, shim_folder
from pto_wsp.errors import CompileError, ScheduleError
from pto_wsp.program import Program

ROOT = Path(__file__).parents[2]
F32 = DType.F32


def tensor(*shape: int) -> Tensor:
    return Tensor(np.zeros(shape, np.float32), shape, F32)


def make_plain() -> Any:
    @kernel
    def shift(x: In[Tile[8, 32, F32]], out: Out[Tile[8, 32, F32]], by: Scalar[F32]):
        pto.store(out, x + by)

    X, OUT, lengths = tensor(4, 8, 32), tensor(4, 8, 32), Ragged(2, [2, 2])

    @workload
    def plain():
        for i in P(DenseDyn(2), names="i"):
            for j in P(lengths[i]):
                shift[i, j](x=X[i * 2 + j], out=OUT[i * 2 + j], by=Symbol("by"))

    return plain().dispatch(DispatchPolicy.round_robin(4))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Program:
    program: Program = make_plain().compile(target="ascend_npu", folder=tmp_path_factory.mktemp("plain") / "tree")
    return program


def test_the_tree(plain: Program) -> None:
    place = Path(str(plain.codegen_artifact_dir))
    on_disk = {p.relative_to(place).as_posix(): p.read_text() for p in place.rglob("*") if p.is_file()}
    assert on_disk == dict(plain.sources)
    for path in (
        "CMakeLists.txt", "README.md", "manifest.json", "include/plan.h", "kernels/shift.h", "aicore/worker.asc",
        "aicpu/expand.aicpu", "host/main.cpp", "host/launch.asc", "check/shim/kernel_operator.h",
    ):  # fmt: skip
        assert path in on_disk, path
    launches = [path for path, text in on_disk.items() if "<<<" in text and not path.startswith(("check/", "README"))]
    assert launches == ["host/launch.asc"]
    assert re.search(r"kernels/shift\.h +\d+ lines", repr(plain.sources)) and "check/shim/" in repr(plain.sources)
    for path, text in on_disk.items():
        assert not re.search("@[A-Z]+@", text), path  # nothing left to fill in
        assert str(ROOT) not in text and str(Path.home()) not in text, path
        if path.startswith(("host/", "include/", "aicore/", "kernels/")):
            assert max(map(len, text.splitlines()), default=0) <= 100, path


def test_manifest(plain: Program) -> None:
    manifest = json.loads(plain.sources["manifest.json"])
    assert manifest["schema"] == folder.SCHEMA
    assert manifest["files"].keys() == plain.sources.keys() - {"manifest.json"}
    shift = manifest["kernels"][0]
    assert (shift["name"], shift["core"], shift["file"]) == ("shift", "AIV", "kernels/shift.h")
    assert (shift["form"], shift["includes"]) == ("AscendC", [])
    assert [p["name"] for p in shift["parameters"]] == ["x", "out", "by"]
    buffers = {b["tile"]: b for b in shift["buffers"]}
    assert buffers["x"]["memory"] == "UB" and buffers["x"]["bytes"] > 0
    assert re.fullmatch(r"\d+-\d+", buffers["x"]["live"])
    assert len(manifest["calls"][0]["axes"]) == 2 and manifest["calls"][0]["loops"][0] == "i"
    assert [t["direction"] for t in manifest["tensors"]] == ["in", "out"]
    assert manifest["symbols"][0]["name"] == "by" and manifest["sizes"][0]["default"] == 2
    assert manifest["schedule"]["dispatch"] == "round_robin" and manifest["schedule"]["targets"] == 4
    assert "shift (AIV)" in plain.placement and "UB" in plain.placement


def test_the_same_bytes() -> None:
    """Another process, another hash seed, objects at other addresses."""
    script = textwrap.dedent("""
        import hashlib, sys
        sys.path.insert(0, ".")
        junk = [object() for _ in range(int(sys.argv[1]))]
        from tests.ascend.test_project import make_plain
        from pto_wsp.ascend import emission, project
        w = make_plain()
        sources = project.sources_of(emission.emission(w.tree(), w.schedule, "plain"))
        print(hashlib.sha256(repr(sources).encode()).hexdigest())
    """)
    found = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script, str(12345 * int(seed))]
        found.add(subprocess.check_output(command, text=True, cwd=ROOT, env=env))
    assert len(found) == 1


def test_needs_no_compiler_of_ours(tmp_path: Path) -> None:
    """Emission without numba, llvmlite and any C++ compiler."""
    script = textwrap.dedent("""
        import sys
        sys.path.insert(0, ".")
        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("numba", "llvmlite", "ml_dtypes", "tqdm"):
                    raise ImportError(f"{name} is blocked")
        sys.meta_path.insert(0, Blocked())
        from tests.ascend.test_project import make_plain
        program = make_plain().compile(target="ascend_npu", folder=sys.argv[1])
        print(len(program.sources))
        try:
            program.simulate()
        except ImportError as error:
            print("simulate:", error)
    """)
    command = [sys.executable, "-c", script, str(tmp_path / "tree")]
    env = {**os.environ, "PATH": ""}
    done = subprocess.run(command, text=True, cwd=ROOT, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 30


# ---- options ---------------------------------------------------------------------------------------------------------


def test_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTO_WSP_CODEGEN_CACHE_DIR", str(tmp_path))
    program = make_plain().compile(target="ascend")
    place = Path(str(program.codegen_artifact_dir))
    assert place.parent == tmp_path / "ascend" and (place / "manifest.json").exists()
    assert make_plain().compile(target="ascend_npu").codegen_artifact_dir == str(place)
    other = make_plain().dispatch(DispatchPolicy.round_robin(5)).compile(target="ascend_npu")
    assert other.codegen_artifact_dir != str(place)


def test_options(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="Codegen compilation failed: folder=.* is no path|folder is a path"):
        make_plain().compile(target="ascend_npu", folder=7)
    (tmp_path / "mine").write_text("x")
    with pytest.raises(CompileError, match="did not write"):
        make_plain().compile(target="ascend_npu", folder=tmp_path)
    with pytest.warns(UserWarning, match="compile\\(\\) has no option 'threads'.*folder"):
        make_plain().compile(target="ascend_npu", threads=2, folder=tmp_path / "a")
    with pytest.warns(UserWarning, match="compile\\(\\) has no option 'folder'"):
        make_plain().compile(folder=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_refused_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "x"
    with pytest.raises(ScheduleError, match="cannot be kept on the device"):
        make_plain().timing(TimingPolicy.batched(4)).compile(target="ascend_npu", folder=place)

    @kernel
    def huge(x: In[Tile[256, 4096, F32]], out: Out[Tile[256, 4096, F32]]):
        pto.store(out, pto.transpose(pto.transpose(x) + 1.0))

    X, OUT = tensor(256, 4096), tensor(256, 4096)

    @workload
    def too_large():
        huge(x=X, out=OUT)

    with pytest.raises(CompileError, match="(?s)Tiles of .* would fit.*tile +memory +offset"):
        too_large().compile(target="ascend_npu", folder=place)
    assert not place.exists()


# ---- names -----------------------------------------------------------------------------------------------------------

ODD = [
    "*/ int evil;", "a\nint evil;", "a\\", "class", "\"; int evil; \"", "' ; int evil;", "ünïcode 火", "??/\nint evil;",
    "", "x" * 300, "R\"(", "%s%n", "//", "<script>`|", "${PTO_EVIL}", "@NAME@", "]] int evil;",
]  # fmt: skip


def test_odd_names(tmp_path: Path) -> None:
    """All odd names in one program, which compiles, and reads its symbols."""
    kernels = []
    for name in ODD:
        def body(x, out, by):  # type: ignore[no-untyped-def]
            pto.store(out, x + by)

        body.__name__ = body.__qualname__ = name
        body.__annotations__ = {"x": In[Tile[8, 32, F32]], "out": Out[Tile[8, 32, F32]], "by": Scalar[F32]}
        kernels.append(kernel(body))
    X, OUT, union, größe = tensor(8, 32), tensor(len(ODD), 8, 32), tensor(2, 8, 32), tensor(2, 8, 32)

    @kernel
    def delete(new: In[Tile[8, 32, F32]], größe: Out[Tile[8, 32, F32]], template: Scalar[F32], half: Scalar[F32]):
        pto.store(größe, new + template + half)

    @workload
    def odd_names():
        for n, (name, odd) in enumerate(zip(ODD, kernels)):
            for i in P(DenseDyn(1), names=name or "i"):
                odd[i](x=X, out=OUT[i + n], by=Symbol(name))
        for i in P(2, names="while"):
            delete[i](new=union[i], größe=größe[i], template=Symbol("int"), half=Symbol("größe"))

    program = odd_names().named("*/ \n#error \"no\" ünï\\").compile(target="ascend_npu", folder=tmp_path / "x")
    for path, text in program.sources.items():
        if not path.startswith("check/"):
            assert text.isascii(), path
            outside = re.sub(r'"(\\.|[^"\\\n])*"|//[^\n]*', "", text) if path != "README.md" else ""
            assert "evil" not in re.sub(r"\b\w*int_evil\w*", "", outside) or path == "manifest.json", path
    for n, name in enumerate(ODD):
        program.set_symbol_f32(name, n + 1)
    program.set_symbol_f32("int", 0.5)
    program.set_symbol_f32("größe", 0.25)
    ran = program.run_on_host()
    np.testing.assert_array_equal(größe.data, np.full((2, 8, 32), 0.75))
    np.testing.assert_array_equal(OUT.data, np.broadcast_to(np.arange(1, len(ODD) + 1)[:, None, None], OUT.shape))
    assert [ran.task(n) for n in range(len(ODD))] == [f"{name}[0]" for name in ODD]
    readme = program.sources["README.md"]
    prose = re.sub(r"`[^`\n]*`", "", "\n".join(line for line in readme.splitlines() if not line.startswith("    ")))
    assert "\n#error" not in prose and "<" not in prose.replace("\\<", "") and "'@NAME@'=1.0" in readme


def test_c_strings() -> None:
    assert host.c_string('a"b\\c\n??/é') == '"a\\"b\\\\c\\012\\077\\077/\\303\\251"'.replace('\\"', "\\042").replace(
        "\\\\", "\\134"
    )


# ---- CMake -----------------------------------------------------------------------------------------------------------

needs_cmake = pytest.mark.skipif(not shutil.which("cmake") or not shutil.which("g++"), reason="needs cmake and g++")


def cmake(place: Path, build_folder: Path, *options: str, **variables: str) -> str:
    env = {**{k: v for k, v in os.environ.items() if k != "ASCEND_HOME_PATH"}, **variables}
    work = [
        ["cmake", "-S", str(place), "-B", str(build_folder), "-DCMAKE_BUILD_TYPE=Debug", *options],
        ["cmake", "--build", str(build_folder), "-j2"],
    ]
    said = ""
    for command in work:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        said += done.stdout + done.stderr
        assert done.returncode == 0, said
    return said


def run_built(program: Program, binary: Path, work: Path) -> None:
    """Run the built program as its README says."""
    for name in ("input", "output"):
        (work / name).mkdir()
    x = np.random.default_rng(1).standard_normal((4, 8, 32), dtype=np.float32)
    manifest = json.loads(program.sources["manifest.json"])
    given, result = (t["file"] for t in manifest["tensors"])
    x.tofile(work / "input" / given)
    np.array([2, 2], np.int32).tofile(work / "input" / manifest["axes"][0]["files"]["lengths"])
    command = [str(binary), "--symbol", "by=1.5", "--report", "tasks.csv"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 tasks on 4 workers, 1 levels, 1 rounds" in done.stdout
    found = np.fromfile(work / "output" / result, np.float32).reshape(x.shape)
    np.testing.assert_array_equal(found, x + np.float32(1.5))
    assert len((work / "tasks.csv").read_text().splitlines()) == 5


@needs_cmake
def test_cmake_builds_the_check(plain: Program, tmp_path: Path) -> None:
    said = cmake(Path(str(plain.codegen_artifact_dir)), tmp_path / "build")
    assert "warning" not in said.lower(), said
    run_built(plain, tmp_path / "build" / "pto_wsp_npu_host", tmp_path)


# A stand-in for the CANN toolkit: languages ASC and AICPU whose compiler is g++ with the shim.
LANGUAGE = {
    "@L@Config.cmake": "list(APPEND CMAKE_MODULE_PATH ${CMAKE_CURRENT_LIST_DIR})\nset(@L@_FOUND 1)\n",
    "CMakeDetermine@L@Compiler.cmake": """\
set(CMAKE_@L@_COMPILER "${CMAKE_CURRENT_LIST_DIR}/compile")
set(CMAKE_@L@_COMPILER_ENV_VAR @L@_COMPILER)
configure_file(${CMAKE_CURRENT_LIST_DIR}/CMake@L@Compiler.cmake.in ${CMAKE_PLATFORM_INFO_DIR}/CMake@L@Compiler.cmake)
""",
    "CMake@L@Compiler.cmake.in": """\
set(CMAKE_@L@_COMPILER "${CMAKE_@L@_COMPILER}")
set(CMAKE_@L@_COMPILER_LOADED 1)
set(CMAKE_@L@_SOURCE_FILE_EXTENSIONS @E@)
set(CMAKE_@L@_OUTPUT_EXTENSION .o)
set(CMAKE_@L@_COMPILER_ENV_VAR "@L@_COMPILER")
""",
    "CMakeTest@L@Compiler.cmake": "set(CMAKE_@L@_COMPILER_WORKS 1)\n",
    "CMake@L@Information.cmake": """\
set(CMAKE_@L@_COMPILE_OBJECT "<CMAKE_@L@_COMPILER> <DEFINES> <INCLUDES> <FLAGS> -o <OBJECT> -c <SOURCE>")
set(CMAKE_@L@_LINK_EXECUTABLE "g++ <LINK_FLAGS> <OBJECTS> -o <TARGET> <LINK_LIBRARIES> -ldl")
set(CMAKE_INCLUDE_FLAG_@L@ "-I")
set(CMAKE_@L@_INFORMATION_LOADED 1)
""",
    "compile": """\
#!/bin/sh
# The launches in chevrons as calls of the shim; everything else as it is.
for last; do :; done
sed 's/\\([A-Za-z_]*\\)<<<\\([^;]*\\)>>>(/::pto_shim::Chevrons(\\1, \\2)(/' "$last" > "$last.plain.@L@.cpp" || exit 1
arguments=""
for argument; do
  case "$argument" in
    --npu-arch=dav-2201) touch "@HOME@/arch" ;;
    --npu-arch=*) exit 1 ;;
    "$last") arguments="$arguments $last.plain.@L@.cpp" ;;
    *) arguments="$arguments $argument" ;;
  esac
done
exec g++ -std=c++17 -DPTO_SHIM_SEPARATE -I@HOME@/include $arguments
""",
}


@needs_cmake
def test_cmake_builds_for_the_npu(plain: Program, tmp_path: Path) -> None:
    """The branch for CANN, with a toolkit that is not one: targets, languages, options, link line."""
    home = tmp_path / "cann"
    for language, ending in (("ASC", "asc"), ("AICPU", "aicpu")):
        (home / language).mkdir(parents=True)
        for name, text in LANGUAGE.items():
            path = home / language / name.replace("@L@", language)
            text = text.replace("@L@", language).replace("@E@", ending).replace("@HOME@", str(home))
            path.write_text(text)
            path.chmod(0o755)
    (home / "include").symlink_to(shim_folder())
    (home / "lib64").mkdir()
    shutil.copy(_machine(compiler())[0], home / "lib64" / "machine.o")
    subprocess.run(["ar", "rcs", "libascendcl.a", "machine.o"], cwd=home / "lib64", check=True)
    place = tmp_path / "tree"  # the compiler leaves files beside the sources
    shutil.copytree(str(plain.codegen_artifact_dir), place)
    packages = f"-DCMAKE_PREFIX_PATH={home}/ASC;{home}/AICPU"
    said = cmake(place, tmp_path / "build", packages, ASCEND_HOME_PATH=str(home))
    assert "warning" not in said.lower(), said
    assert (home / "arch").exists()
    run_built(plain, tmp_path / "build" / "pto_wsp_npu_host", tmp_path)
    cache = (tmp_path / "build" / "CMakeCache.txt").read_text()
    assert "PTO_WSP_ENABLE_ASCEND:BOOL=ON" in cache and "CMAKE_ASC_ARCHITECTURES:STRING=dav-2201" in cache
