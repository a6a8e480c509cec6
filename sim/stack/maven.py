"""Java and Maven: found on the machine, their versions checked, and the servers' jars resolved by them.

Maven resolves from wherever the machine's own settings tell it to. A folder of jars is complete when it holds the pom
that it was made from; then neither Maven nor a network is needed again.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sim.stack.settings import CASSANDRA, KAFKA, StackError

JAVA_MAJOR: Final = 17
"""The only version that both servers are at home on: Cassandra 5.0 runs on 11 and 17."""

MAVEN_TIMEOUT_S: Final = 900

_DEPENDENCY_PLUGIN: Final = "3.8.1"


@dataclass(frozen=True)
class Artifact:
    """What Maven calls a thing in its repository."""

    group: str
    name: str
    version: str


KAFKA_SERVER: Final = Artifact("org.apache.kafka", "kafka_2.13", "3.9.1")
CASSANDRA_SERVER: Final = Artifact("org.apache.cassandra", "cassandra-all", "5.0.5")

ARTIFACTS: Final = {
    # Kafka's own pom names no logging backend; its distribution ships this one.
    KAFKA: (KAFKA_SERVER, Artifact("org.slf4j", "slf4j-reload4j", "1.7.36")),
    CASSANDRA: (CASSANDRA_SERVER,),
}


def find_java() -> Path:
    """The `java` of JAVA_HOME, else of PATH, which must be Java 17. Raises StackError."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    if found is None:
        where = f"JAVA_HOME is {home}, which has no bin/java" if home else "there is no java on PATH"
        raise StackError(f"the stack needs Java {JAVA_MAJOR}: {where}; install a JDK or JRE {JAVA_MAJOR}")
    answer = subprocess.run([found, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', answer.stderr + answer.stdout)
    if answer.returncode != 0 or version is None:
        raise StackError(f"{found} -version failed", (answer.stderr + answer.stdout).splitlines()[-10:])
    if int(version[1]) != JAVA_MAJOR:
        raise StackError(f"the stack needs Java {JAVA_MAJOR}, {found} is Java {version[1]}; set JAVA_HOME to another")
    return Path(found)


def resolve_jars(service: str, folder: Path) -> Path:
    """A folder with the jars of a service's server, filled by Maven unless it is complete. Raises StackError."""
    server = ARTIFACTS[service][0]
    jars = folder / "jars" / f"{service}-{server.version}"
    pom = jars / "pom.xml"
    wanted = _pom(service)
    if pom.is_file() and pom.read_text() == wanted:
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise StackError("the stack needs Maven to fetch the servers: there is no mvn on PATH")
    shutil.rmtree(jars, ignore_errors=True)
    unfinished = jars.with_name(jars.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    (unfinished / "pom.xml").write_text(wanted)
    command = [maven, "--batch-mode", "--quiet", "--file", str(unfinished / "pom.xml")]
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={unfinished}"]
    try:
        run = subprocess.run(
            command + goal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=MAVEN_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise StackError(f"Maven did not fetch {server.name} {server.version} in {MAVEN_TIMEOUT_S} s") from None
    if run.returncode != 0:
        lines = [line for line in run.stdout.splitlines() if line.strip()]
        raise StackError(
            f"Maven could not resolve {server.name} {server.version} (status {run.returncode})", lines[-10:]
        )
    if not (unfinished / f"{server.name}-{server.version}.jar").is_file():
        raise StackError(f"Maven reported success but left no {server.name}-{server.version}.jar in {unfinished}")
    unfinished.rename(jars)
    return jars


def class_path(jars: Path) -> str:
    """Every jar of a folder, in the order of their names: what a class path finds first must not be left to chance."""
    return os.pathsep.join(str(jar) for jar in sorted(jars.glob("*.jar")))


def _pom(service: str) -> str:
    dependencies = "\n".join(
        f"    <dependency><groupId>{each.group}</groupId><artifactId>{each.name}</artifactId>"
        f"<version>{each.version}</version></dependency>"
        for each in ARTIFACTS[service]
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>exchange-sim</groupId><artifactId>{service}-server</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>
{dependencies}
  </dependencies>
  <build><plugins><plugin>
    <groupId>org.apache.maven.plugins</groupId><artifactId>maven-dependency-plugin</artifactId>
    <version>{_DEPENDENCY_PLUGIN}</version>
  </plugin></plugins></build>
</project>
"""
