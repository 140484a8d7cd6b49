#!/bin/bash
# Prints the rules as objects of the Prometheus operator: bash deploy/prometheus/prometheus-rules.sh | kubectl apply -f -
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
for file in *.rules.yml; do
  cat <<EOF
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: distorchd-${file%.rules.yml}
  namespace: distorchd
spec:
EOF
  sed 's/^/  /' "$file"
done
