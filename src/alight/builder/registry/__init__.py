"""REGISTRIES: images that others made, by the OCI distribution protocol, as layers of this machine's store.

reference.py   the name of an image, taken apart
settings.py    mirrors, plain HTTP, certificates: containers-registries.conf
transport.py   HTTP with proxies, redirects, retries
client.py      manifests and blobs of one registry, and its ways to log in
clouds.py      credentials from a Secret's keys; AWS and Google exchange theirs for others
manifest.py    what registries say of images
unpack.py      an archive into a directory: a process of its own
pull.py        the order of it all
"""
