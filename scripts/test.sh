#!/usr/bin/env bash
# Every test of the project. See README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --quiet
