# A relay: docker build -f relay.Dockerfile --build-arg VERSION=... -t relay .
FROM python:3.13-slim

# One layer, no cache, and only what a relay needs: its log's driver, and metrics.
ARG VERSION=""
RUN pip install --no-cache-dir --disable-pip-version-check \
    "amplitude-async[cli,postgres,nats,prometheus]${VERSION:+==$VERSION}"

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

# By number, so that runAsNonRoot can see that it is not root.
USER 10001:10001

EXPOSE 8080

# No shell between: process 1 gets the SIGTERM.
ENTRYPOINT ["amplitude-async", "relay"]
CMD ["run", "--health", "0.0.0.0:8080"]

# Orchestrators have probes of their own; docker alone asks this.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/live', timeout=2)"]

STOPSIGNAL SIGTERM
