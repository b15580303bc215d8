"""What is built and deployed, as far as it can be checked without an engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from gateway.settings import POLICY_VARIABLES, SETTINGS

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SCRIPTS = [*ROOT.glob("deploy/*.sh"), ROOT / ".ci/run"]


def instructions():
    """The Dockerfile as (instruction, rest), continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def rests(instruction):
    return [rest for name, rest in instructions() if name == instruction]


def pins(path):
    """Name and version of everything that a lock file pins."""
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / path).read_text(), re.MULTILINE))


def test_instructions_are_known():
    """Each line of the Dockerfile begins with an instruction."""
    known = {"FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL"}
    assert {name for name, _ in instructions()} <= known | {"ENTRYPOINT", "CMD"}


def test_base_images_are_pinned():
    """No stage is built on a tag that moves between releases, and both on the same."""
    bases = {rest.split()[0] for rest in rests("FROM")}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", bases.pop())


def test_llama_cpp_is_built_for_other_machines():
    """The image's llama.cpp does not depend on the processor that built it."""
    (arguments,) = [rest for rest in rests("ENV") if rest.startswith("CMAKE_ARGS")]
    for flag in ("-DGGML_NATIVE=OFF", "-DGGML_AVX2=ON", "-DGGML_FMA=ON", "-DGGML_F16C=ON", "-DGGML_BMI2=ON"):
        assert flag in arguments


def test_runs_as_nobody_in_particular():
    """The last user is not root, and is named by number, so that an orchestrator can check it."""
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", rests("USER")[-1])


def test_health_and_signals():
    """The container has a health check, runs the gateway itself as its process, and is stopped by SIGTERM."""
    assert "firstdraft" in rests("HEALTHCHECK")[0]
    assert rests("ENTRYPOINT") == ['["firstdraft"]']
    assert rests("CMD") == ['["serve"]']
    assert rests("STOPSIGNAL") == ["SIGTERM"]


def test_packages_leave_no_lists():
    """Packages are installed without recommendations, and their lists are removed in the same layer."""
    for run in rests("RUN"):
        if "apt-get" in run:
            assert "--no-install-recommends" in run
            assert "rm -rf /var/lib/apt/lists/*" in run


def test_what_is_copied_exists():
    """Each COPY from the checkout names something that is there, and that .dockerignore lets through."""
    let_through = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    sources = [word for rest in rests("COPY") if "--from" not in rest for word in rest.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert source in let_through


def variables():
    """All FIRSTDRAFT_ variables that the deployment sets."""
    found = set(re.findall(r"\b(FIRSTDRAFT_[A-Z_]+)=", DOCKERFILE))
    for service in COMPOSE["services"].values():
        found |= {name for name in service.get("environment", {}) if name.startswith("FIRSTDRAFT_")}
    return found


def test_variables_are_settings():
    """The deployment sets no variable that nothing reads."""
    assert variables() <= {setting.variable for setting in SETTINGS} | POLICY_VARIABLES


def test_values_are_valid():
    """The values that the deployment gives to settings are taken by them."""
    for setting in SETTINGS:
        given = re.search(rf"\b{setting.variable}=(\S+)", DOCKERFILE)
        if given:
            setting.read(given[1])
    (url,) = [setting for setting in SETTINGS if setting.name == "redis_url"]
    url.read(COMPOSE["services"]["gateway"]["environment"]["FIRSTDRAFT_REDIS_URL"])


def test_compose_refers_to_what_there_is():
    """Build file, mounts, volumes, the store's name and dependencies of the compose file exist."""
    services = COMPOSE["services"]
    gateway = services["gateway"]
    assert (ROOT / gateway["build"]["context"] / gateway["build"]["dockerfile"]).is_file()
    for service in services.values():
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            assert (ROOT / source).is_dir() if source.startswith(".") else source in COMPOSE["volumes"]
    for name, needs in gateway["depends_on"].items():
        assert needs == {"condition": "service_healthy"}
        assert "healthcheck" in services[name]
        assert f"//{name}:" in gateway["environment"]["FIRSTDRAFT_REDIS_URL"]


def test_store_keeps_budgets():
    """The compose file's store writes what it holds to disk, and evicts only what expires, which no budget does."""
    command = COMPOSE["services"]["store"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    assert command[command.index("--maxmemory-policy") + 1] == "volatile-lru"


def test_time_to_drain():
    """The engine waits longer for the gateway than the gateway waits for its requests."""
    (drain,) = [setting for setting in SETTINGS if setting.name == "drain_s"]
    assert int(COMPOSE["services"]["gateway"]["stop_grace_period"].removesuffix("s")) > float(drain.default)


def test_compose_as_docker_reads_it():
    """Docker itself takes the compose file, where its client has `compose`."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no `docker compose` here")
    subprocess.run([docker, "compose", "--file", ROOT / "docker-compose.yml", "config", "--quiet"], check=True)


def test_locks_hold_all_dependencies():
    """Every dependency of the project is pinned, at the same version in both lock files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    run, dev = pins("deploy/requirements.lock"), pins("requirements.lock")

    def names(requirements):
        return {re.match(r"[A-Za-z0-9._-]+", one)[0].lower() for one in requirements}

    assert names(project["dependencies"]) <= set(run)
    assert names(project["optional-dependencies"]["dev"]) <= set(dev)
    assert run.items() <= dev.items()


@pytest.mark.parametrize("path", ["requirements.lock", "deploy/requirements.lock"])
def test_locks_say_what_and_not_where(path):
    """A lock file has a hash for each version, and no address of a registry or a folder."""
    text = (ROOT / path).read_text()
    assert not re.search(r"https?://|file://|--index|--find-links|--extra-index|--trusted|@ ", text)
    for block in re.split(r"\n(?=[a-z0-9])", text)[1:]:
        assert "--hash=sha256:" in block, block[:80]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts(script):
    """Each script is executable, is Bash, and stops at the first error."""
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True, timeout=60)


LLAMA_CPP = {
    "ops.cpp": """#include "ops.h"
static void ggml_compute_forward_flash_attn_ext_f16(
        const ggml_compute_params * params,
        ggml_tensor * dst) {
    const ggml_tensor * q = dst->src[0]; /* "a" [b] ${c} \\n; d */
}
""",
    "amx/amx.cpp": """#if defined(__AMX_INT8__) && defined(__AVX512VNNI__)
        size = ggml_backend_amx_desired_wsize(op);
        if (op->op == GGML_OP_MUL_MAT) {
    if (qtype_has_amx_kernels(tensor->type)) {
    /* .get_tensor      = */ nullptr,
        if (op->op != GGML_OP_MUL_MAT) {
        if (op->op == GGML_OP_MUL_MAT && op->src[0]->buffer &&
    return ggml_backend_amx_get_alloc_size(tensor);
#endif
""",
}
"""Of the two files of llama.cpp that our kernels are put into: the lines that they are put at."""


@pytest.fixture
def put_kernels(tmp_path):
    """Has CMake read build.cmake beside some files of llama.cpp; returns them as they are then, and what CMake said."""
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("no CMake here")
    script = tmp_path / "script.cmake"
    script.write_text(f"""
function(add_compile_options)
endfunction()
list(PREPEND CMAKE_MODULE_PATH "{tmp_path}")
include("{ROOT}/deploy/llama_cpp/build.cmake")
""")
    (tmp_path / "CheckCXXCompilerFlag.cmake").write_text("function(check_cxx_compiler_flag)\nendfunction()\n")

    def run(files: dict[str, str]):
        folder = tmp_path / "ggml/src/ggml-cpu"
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        done = subprocess.run([cmake, "-P", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        return {name: (folder / name).read_text() for name in files}, done.stderr

    return run


def test_kernels_are_put_into_llama_cpp(put_kernels):
    """Our kernels come before those of llama.cpp, nothing of which is lost, and once only."""
    files, said = put_kernels(LLAMA_CPP)
    assert said == ""
    for name, header, calls in (
        ("ops.cpp", "attention.h", ["gathered::takes(dst)"]),
        ("amx/amx.cpp", "q8_0.h", ["work_size(op)", "forward(", "pack(", "get_tensor,", "is_table(", "ggml_nbytes("]),
    ):
        assert f'#include "{ROOT}/deploy/llama_cpp/{header}"' in files[name]
        for call in calls:
            assert call in files[name]
        words = iter(re.findall(r"\w+", files[name]))
        assert all(word in words for word in re.findall(r"\w+", LLAMA_CPP[name].replace("nullptr", "")))
    assert put_kernels(files) == (files, "")


@pytest.mark.parametrize("name", LLAMA_CPP)
def test_another_llama_cpp_stays_as_it_is(put_kernels, name):
    """A file in which one place is missing, or there twice, is built as it is, and CMake says so."""
    lines = LLAMA_CPP[name].splitlines(keepends=True)
    for other in ("".join([*lines[:3], *lines[4:]]), LLAMA_CPP[name] * 2, ""):
        files, said = put_kernels(LLAMA_CPP | {name: other})
        assert files[name] == other
        assert f"{name} is not the one that our kernels are for" in " ".join(said.split())
        assert all("firstdraft" in text for file, text in files.items() if file != name)


def test_a_llama_cpp_without_these_files(put_kernels):
    """It is built without the kernels."""
    files, said = put_kernels({})
    assert files == {}
    assert " ".join(said.split()).count("it is built without them") == 2


PIP_CALL = re.compile(r"^-m pip (install|uninstall) (.*) CACHE=(\S*)$", re.MULTILINE)


@pytest.fixture
def installer(tmp_path):
    """A checkout's installer, an interpreter that writes down what pip is asked for, and a compiler for some target."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    clients = ("tests/clients/llama_index/requirements.lock", "tests/clients/node/package-lock.json")
    for path in ("requirements.lock", "pyproject.toml", *clients):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    tools = tmp_path / "tools"
    tools.mkdir()
    python = tools / "python3"
    python.write_text(
        f"""#!/bin/bash
case "$1 $2" in
    "-m venv") mkdir -p "${{@: -1}}/bin" && cp "$0" "${{@: -1}}/bin/python" ;;
    "-m pip") echo "$* CACHE=$PIP_CACHE_DIR" >>{tmp_path}/asked ;;
    *) exec {sys.executable} "$@" ;;
esac
"""
    )
    (tools / "gcc").write_text(f"#!/bin/bash\ncat {tmp_path}/target\n")
    for tool in ("g++", "cmake", "ninja", "git"):
        (tools / tool).write_text("#!/bin/bash\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)

    def run(target: str):
        """What `pip` was asked for: (verb, what, cache)."""
        (tmp_path / "target").write_text(target)
        (tmp_path / "asked").write_text("")
        environment = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(tmp_path)}
        command = ["bash", tmp_path / "deploy/install.sh", "run"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert not done.returncode, done.stderr
        return PIP_CALL.findall((tmp_path / "asked").read_text())

    return run


def test_what_was_compiled_for_another_processor_is_not_taken(installer):
    """llama.cpp is compiled anew, past pip's cache, for another processor; for the same, nothing is done."""
    *_, (_, locked, cache), (verb, editable, _) = installer("avx2")
    assert "deploy/requirements.lock" in locked
    assert (verb, editable) == ("install", "-v --no-deps -e .")
    assert installer("avx2") == []
    (verb, what, _), *_, (_, _, other) = installer("avx2 amx")
    assert verb == "uninstall"
    assert what.endswith("llama-cpp-python")
    assert other != cache
    assert "/.cache/firstdraft/pip-" in other
