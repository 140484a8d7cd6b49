#!/bin/bash
# Prints what an image is made of, as CycloneDX 1.6: the Debian packages that are installed, the wheels whose libraries the bundle
# holds, and distorchd. Runs in the image, at its build:
#   deploy/sbom.sh WHEELS_FILE
set -euo pipefail
version=$(distorchd --version | cut -d' ' -f2)

# Lines of TYPE NAME VERSION PURL_PREFIX PURL_SUFFIX become components. Names and versions of Debian and PyPI need no escaping
# in JSON; in package URLs some of their characters do.
components() {
  awk '
    function escaped(text) { gsub(/\+/, "%2B", text); gsub(/:/, "%3A", text); return text }
    {
      purl = $4 escaped($2) "@" escaped($3) $5
      printf "%s{\"type\": \"%s\", \"name\": \"%s\", \"version\": \"%s\", \"purl\": \"%s\", \"bom-ref\": \"%s\"}",
        (NR > 1 ? ",\n" : ""), $1, $2, $3, purl, purl
    }'
}

cat <<EOF
{
"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
"metadata": {
"timestamp": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
"component": $(components <<<"application distorchd $version pkg:generic/")
},
"components": [
$({
  dpkg-query -W -f='library ${Package} ${Version} pkg:deb/debian/ ?arch=${Architecture}&distro=debian-12\n'
  sed 's|^|library |; s|$| pkg:pypi/|' "$1"
} | components)
]
}
EOF
