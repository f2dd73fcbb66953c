#!/usr/bin/env bash
# Fetches Apache Kafka 4.3.1 and what it needs at run time, through Maven, into a folder outside the repository. Once.
set -euo pipefail

libs=${BONGSU_KAFKA_LIBS:-$HOME/.cache/bongsu/kafka-4.3.1}
pom=$(cd "$(dirname "$0")/../testkit" && pwd)/pom.xml

if [ -f "$libs/complete" ]; then
    exit 0
fi
command -v mvn >/dev/null || { echo "kafka-jars: mvn is not installed (Debian: apt-get install maven)" >&2; exit 1; }

# Into a folder of its own first: an interrupted download must not look like a complete one.
fresh=$(mktemp -d "${libs%/*}/kafka-XXXXXX" 2>/dev/null || { mkdir -p "${libs%/*}" && mktemp -d "${libs%/*}/kafka-XXXXXX"; })
trap 'rm -rf "$fresh"' EXIT
echo "kafka-jars: fetching Apache Kafka 4.3.1 into $libs" >&2
mvn --batch-mode --quiet --file "$pom" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$fresh" >&2
ls "$fresh"/kafka_2.13-4.3.1.jar "$fresh"/kafka-tools-4.3.1.jar >/dev/null
touch "$fresh/complete"
rm -rf "$libs"
mv "$fresh" "$libs"
trap - EXIT
