"""What ``snm bench`` times: modules that it has pytest run, each in a process of its own."""
