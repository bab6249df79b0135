# The HTTP service. Built in one stage, run in another that holds Python, the installed package and nothing else; no torch.
#
#     docker build -t lastresort .
#     docker run --init -p 127.0.0.1:8000:8000 -v lastresort:/data -v ./keys.txt:/run/secrets/lastresort-keys:ro lastresort
#
# In a container the service must listen on 0.0.0.0, and beyond loopback it wants API keys (one a line, 16 characters or more; the file
# is read by user 10001). Options after the image's name win.
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY . .
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m pip wheel --no-deps --constraint constraints.txt --wheel-dir /wheels . \
    && python -m venv --without-pip /app \
    && python -m pip --python /app/bin/python install --constraint constraints.txt "$(echo /wheels/*.whl)[serve,postgres]"

FROM python:3.13-slim-bookworm
COPY --from=build /app /app
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin lastresort && install --directory --owner=lastresort --mode=700 /data
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["/app/bin/python", "-c", "import re, urllib.request; port = re.findall('--port.([0-9]+)', open('/proc/1/cmdline').read())[-1]; urllib.request.urlopen(f'http://127.0.0.1:{port}/health/ready', timeout=4)"]
ENTRYPOINT ["/app/bin/lastresort", "serve", "--host", "0.0.0.0", "--port", "8000", "--api-key-file", "/run/secrets/lastresort-keys", "--store", "sqlite:////data/lastresort.db"]
