"""A run over a folder of images, whoever starts it: reading, resume, locks, index, hosts, files."""
