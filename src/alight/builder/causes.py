"""What goes wrong in build steps, by the words of pip, uv, apt, compilers and buildah; and what to do about it.

Data. In order: the first pattern that fits explains the step.
"""

from __future__ import annotations

#: Which Debian package holds a header, a library or a program that builds ask for.
_PACKAGES = {
    "Python.h": "python3-dev", "ffi.h": "libffi-dev", "openssl/ssl.h": "libssl-dev", "zlib.h": "zlib1g-dev",
    "libpq-fe.h": "libpq-dev", "mysql.h": "default-libmysqlclient-dev", "mysql_config": "default-libmysqlclient-dev",
    "libxml/xpath.h": "libxml2-dev", "libxml/xmlversion.h": "libxml2-dev", "libxslt/xslt.h": "libxslt1-dev",
    "jpeglib.h": "libjpeg-dev", "png.h": "libpng-dev", "portaudio.h": "portaudio19-dev", "sndfile.h": "libsndfile1-dev",
    "cairo.h": "libcairo2-dev", "ft2build.h": "libfreetype-dev", "hdf5.h": "libhdf5-dev", "gmp.h": "libgmp-dev",
    "ldap.h": "libldap2-dev", "sasl/sasl.h": "libsasl2-dev", "sql.h": "unixodbc-dev", "snappy.h": "libsnappy-dev",
    "numa.h": "libnuma-dev", "bzlib.h": "libbz2-dev", "lzma.h": "liblzma-dev", "sqlite3.h": "libsqlite3-dev",
    "curl/curl.h": "libcurl4-openssl-dev", "gdal.h": "libgdal-dev", "geos_c.h": "libgeos-dev",
    "libGL.so.1": "libgl1", "libglib-2.0.so.0": "libglib2.0-0", "libgthread-2.0.so.0": "libglib2.0-0",
    "libSM.so.6": "libsm6", "libXext.so.6": "libxext6", "libXrender.so.1": "libxrender1", "libgomp.so.1": "libgomp1",
    "libsndfile.so.1": "libsndfile1", "libportaudio.so.2": "libportaudio2", "libpq.so.5": "libpq5",
    "libxml2.so.2": "libxml2", "libnss3.so": "libnss3", "libmagic.so.1": "libmagic1", "libnuma.so.1": "libnuma1",
    "libusb-1.0.so.0": "libusb-1.0-0", "libespeak-ng.so.1": "libespeak-ng1", "libavcodec.so.59": "ffmpeg",
    "pkg-config": "pkg-config", "cmake": "cmake", "ninja": "ninja-build", "swig": "swig", "nasm": "nasm",
    "llvm-config": "llvm-dev", "gcc": "build-essential", "cc": "build-essential", "g++": "build-essential",
    "x86_64-linux-gnu-gcc": "build-essential", "x86_64-linux-gnu-g++": "build-essential",
    "make": "build-essential", "curl": "curl", "wget": "wget", "git": "git",
    "unzip": "unzip", "ffmpeg": "ffmpeg", "gpg": "gnupg", "java": "default-jre-headless",
    "node": "nodejs", "npm": "npm",
}  # fmt: skip


def package_with(name: str) -> str:
    """The Debian package that holds what is called so; "" when it is not known."""
    return _PACKAGES.get(name, "")


DISK_HINT = "free some space, or set ALIGHT_HOME to a directory on a larger disk"
_TLS_HINT = (
    "set SSL_CERT_FILE (or pip's `cert`) on the machine that builds to the bundle with your company's certificate, "
    "and restart the node"
)

_EXPIRED_HINT = (
    "ALIGHT_DEBIAN_MIRROR names another mirror; for one that is meant to be old, apt's setting "
    'Acquire::Check-Valid-Until "false" of the machine that builds (/etc/apt/apt.conf.d) holds for images, too'
)

# In order: a full disk and a broken TLS make tools say that packages don't exist, so those come first.
CAUSES: tuple[tuple[str, str, str | None], ...] = (
    (
        r"no space left on device|os error 28|disk quota exceeded",
        "no space left on the disk that holds images",
        DISK_HINT,
    ),
    (
        r"certificate verify failed|invalid peer certificate|UnknownIssuer|self[- ]signed certificate",
        "a TLS certificate was not trusted",
        _TLS_HINT,
    ),
    (
        r"Temporary failure (?:in name resolution|resolving)|dns error|failed to lookup address|Could not resolve host",
        "a host name could not be resolved",
        "check the network and DNS of the machine that builds",
    ),
    (
        r"Release file for (\S+) is (?:expired|not valid yet)",
        "the package list {0} is older than it says it may be, or this machine's clock is wrong",
        _EXPIRED_HINT,
    ),
    (
        r"Because (\S+) was not found in the package registry",
        "the package {0} does not exist in the package index",
        "check the spelling; a private package needs index_url or extra_index_url",
    ),
    (
        r"No matching distribution found for (\S+)",
        "no version of {0} in the package index fits",
        "check the spelling, the version and the Python version; a private package needs index_url or extra_index_url",
    ),
    (
        r"Because there (?:is|are) no versions? of (\S+)",
        "no version of {0} in the package index fits",
        "check the version that is asked for",
    ),
    (
        r"Unable to locate package (\S+)",
        "the Debian package {0} does not exist",
        "check the spelling on packages.debian.org; this image is Debian, not Ubuntu",
    ),
    (
        r"Package '?(\S+?)'? has no installation candidate",
        "the Debian package {0} cannot be installed",
        "check the spelling on packages.debian.org",
    ),
    (
        r"externally-managed-environment|This environment is externally managed",
        "the image's Python belongs to its distribution, which refuses packages from elsewhere",
        "use .pip_install() or .uv_pip_install(), or in a command: uv pip install --system --break-system-packages",
    ),
    (
        r"pg_config executable not found",
        "PostgreSQL's development package, with pg_config, is not in the image",
        'put .apt_install("libpq-dev", "gcc") before this step, or install psycopg2-binary',
    ),
    (
        r"(?:Could not find|Unable to find) (?:the )?`?(mysql_config|cmake|ninja|pkg-config|llvm-config)`?",
        "the program {0} is not in the image",
        "put .apt_install() with the Debian package that holds it before this step",
    ),
    (
        r"fatal error: (\S+\.h(?:pp)?): No such file",
        "the header {0}, of a system library's development package, is not in the image",
        "put .apt_install() with the Debian package that holds it before this step; packages.debian.org finds it",
    ),
    (
        r"(?:ImportError|OSError|error while loading shared libraries):? (lib\S+\.so[.\d]*): cannot open shared object",
        "the system library {0} is not in the image",
        "put .apt_install() with the Debian package that holds it before this step; packages.debian.org finds it",
    ),
    (
        r"can't find Rust compiler|cargo, the Rust package manager, is not installed|`cargo` not found",
        "the package is built with Rust, which is not in the image",
        'put .apt_install("rustc", "cargo") before this step, or choose a version that has a wheel',
    ),
    (
        r"CUDA_HOME environment variable is not set|nvcc(?: was)? not found|\bnvcc: not found",
        "the package is built with CUDA's compiler, which is not in the image",
        'start from Image.from_registry("nvidia/cuda:…-devel-…", add_python=…), or choose a version that has a wheel',
    ),
    (
        r"Because (?:all versions of )?(\S+?)(?:==\S+)? ha(?:s|ve) no wheels? with|(\S+) is not a supported wheel",
        "no wheel of {0} fits this Python and this machine",
        "choose a Python that it has wheels for: Image.debian_slim(python_version=…)",
    ),
    (
        r"depends on Python ?(\S+)|requires? a different Python|Requires-Python ?(\S+)|requires Python ?([<>=~!]\S+)",
        "a package needs another Python than the image has",
        "choose one with Image.debian_slim(python_version=…), or an older version of the package",
    ),
    (
        r"Exec format error|cannot execute binary file|rosetta error|no image found in (?:image index|manifest list)",
        "a program or image is for another kind of processor than this machine has",
        "choose a build for this machine's architecture (`uname -m` says which it is)",
    ),
    (
        r"dockerfile parse error|unknown instruction: \S+|error parsing .*Dockerfile",
        "a line of the Dockerfile cannot be read",
        "the last lines of the step say which",
    ),
    (
        r"possible escaping context directory error|forbidden path outside the build context",
        "the Dockerfile copies from outside its context",
        "context_dir= names the directory that COPY copies from; nothing above it is sent",
    ),
    (
        r"copier: (?:stat|get)[^\n]*?\"([^\"]+)\": no such file|no items matching glob \"([^\"]+)\"",
        "the Dockerfile copies {0}, which is not in the context",
        "context_dir= names the directory that COPY copies from; is the file left out by .dockerignore or ignore=?",
    ),
    (
        r"(?:^|[\s'\"])(/\S+?)['\"]?: Permission denied|Permission denied: ['\"]?(\S+)|Could not open lock file (\S+)",
        "{0} may not be written or run",
        "steps run as root; a script needs chmod +x, and files that are lent to a step are read-only",
    ),
    (
        r"git executable not found|Cannot find command 'git'|git: not found",
        "git is not in the image",
        'put .apt_install("git") before this step',
    ),
    (
        r"(?:error: command|failed to find|unable to execute|directory:) '?(cc|\S*(?:gcc|g\+\+|clang))(?![\w-])",
        "the compiler {0} is not in the image",
        'put .apt_install("build-essential") before this step, or choose a version that has a wheel',
    ),
    (
        r"no solution found when resolving dependencies",
        "the asked versions don't fit together",
        "the last lines of the step say which",
    ),
    (
        r"No module named '(distutils\S*)'",
        "a package is older than this Python and is built with {0}, which it no longer has",
        "choose a newer version of the package, or an older Python with Image.debian_slim(python_version=…)",
    ),
    (r"Traceback \(most recent call last\)[\s\S]*\n(\w[\w.]*(?:Error|Exception|Exit)\b[^\n]*)\s*\Z", "{0}", None),
    (r"/bin/sh: \d+: (\S+): not found", "the command {0} is not in the image", None),
)
