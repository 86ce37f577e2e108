"""`python -m snnkd_deploy`, which torchrun can start too."""

from snnkd_deploy.cli import main

if __name__ == "__main__":
    main(prog_name="snnkd-deploy")
