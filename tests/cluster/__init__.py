"""
``make cluster-test``: a real cluster of three hosts on one machine, by the guide's commands.

Everything lives in namespaces of its own (mounts, network, processes, hostname), one set around
the whole test and one inside it for each host. So nothing can be confused with another Ray, a
host dies as a machine does, and the end of the outermost process is the end of all: the kernel
takes processes, interfaces and mounts away with it, even after kill -9.
"""
