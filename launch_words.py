"""What launch.py says, in the language of the system. For launch.py and its modules; standard library only.

Nothing is installed yet when they speak, so they do not have the studio's catalogues. Which language it is follows the
same rule as in studio/core/language.py. Python 3.6 has to be able to run this.
"""

import os

USAGE = """\
python launch.py [--port N] [--no-browser] [--window] [--user-data DIR] [--cpu] [--listen] [--auth-file FILE]
                 [--root-path URL]
    Sets LoRA Studio up in .venv beside launch.py if need be, and starts it. The options go to
    `python -m studio ui`, which checks them. --cpu on Linux also means PyTorch without CUDA.

python launch.py test [--all | pytest's arguments]
    Sets up the same with what the tests need, and runs the fast ones; all with --all, tier after tier; with
    arguments for pytest, such as tests/engine -k nan, what they select.

Everything is installed into .venv; what pip said is in .venv/install.log."""

PORTUGUESE = {
    USAGE: """\
python launch.py [--port N] [--no-browser] [--window] [--user-data PASTA] [--cpu] [--listen] [--auth-file ARQUIVO]
                 [--root-path URL]
    Prepara o LoRA Studio em .venv, ao lado de launch.py, se for preciso, e o inicia. As opções vão para
    `python -m studio ui`, que as verifica. No Linux, --cpu também significa PyTorch sem CUDA.

python launch.py test [--all | argumentos do pytest]
    Prepara o mesmo com o que os testes exigem e roda os rápidos; com --all, todos, grupo por grupo; com
    argumentos para o pytest, como tests/engine -k nan, os que eles selecionam.

Tudo é instalado em .venv; o que o pip disse está em .venv/install.log.""",
    "Stopped. Run launch.py again to continue.": "Interrompido. Rode launch.py de novo para continuar.",
    "LoRA Studio needs a Mac with Apple silicon and macOS 14 or newer, because PyTorch does; this Mac has an Intel"
    " processor. Nothing was installed.": (
        "O LoRA Studio precisa de um Mac com Apple silicon e macOS 14 ou mais recente, pois o PyTorch exige isso; este"
        " Mac tem um processador Intel. Nada foi instalado."
    ),
    "LoRA Studio needs a Mac with Apple silicon and macOS 14 or newer, because PyTorch does; this is macOS {macos}."
    " Update macOS in System Settings, then run launch.py again.": (
        "O LoRA Studio precisa de um Mac com Apple silicon e macOS 14 ou mais recente, pois o PyTorch exige isso; este"
        " é o macOS {macos}. Atualize o macOS nos Ajustes do Sistema e rode launch.py de novo."
    ),
    "LoRA Studio needs a Mac with Apple silicon and macOS 14 or newer, because PyTorch does; this Mac will do, but"
    " this Python runs as an Intel program (under Rosetta). Run it with arch -arm64 python3 launch.py. If that fails,"
    " install Python for Apple silicon from python.org first.": (
        "O LoRA Studio precisa de um Mac com Apple silicon e macOS 14 ou mais recente, pois o PyTorch exige isso; este"
        " Mac serve, mas este Python roda como programa Intel (no Rosetta). Use arch -arm64 python3 launch.py. Se não"
        " funcionar, instale antes o Python para Apple silicon de python.org."
    ),
    "LoRA Studio needs Python 3.11 or newer; this is {found} at {executable}. {advice}": (
        "O LoRA Studio precisa do Python 3.11 ou mais recente; este é o {found}, em {executable}. {advice}"
    ),
    "Install Python 3.11 from python.org or your package manager, and run it with python3.11 launch.py": (
        "Instale o Python 3.11 de python.org ou pelo gerenciador de pacotes e rode python3.11 launch.py"
    ),
    "Run it with {name} launch.py": "Rode {name} launch.py",
    "== The fast tests": "== Os testes rápidos",
    "== The process tests": "== Os testes de processos",
    "== The browser tests": "== Os testes no navegador",
    "== The slow tests": "== Os testes lentos",
    "These were the fast tests. `python launch.py test --all` runs those that start processes,\n"
    "those in a browser and the slow ones too; `python launch.py test tests/engine` runs all in a folder.": (
        "Esses foram os testes rápidos. `python launch.py test --all` roda também os que iniciam processos,\n"
        "os do navegador e os lentos; `python launch.py test tests/engine` roda todos os de uma pasta."
    ),
    "Repairing .venv: {reason}.": "Reparando .venv: {reason}.",
    "the last set-up was interrupted": "a última preparação foi interrompida",
    "its Python does not start": "o Python dele não inicia",
    "its Python is too old, has changed, or has no pip": "o Python dele é antigo demais, mudou ou não tem pip",
    "its set-up did not finish": "a preparação não terminou",
    "the folder has moved from {folder}": "a pasta foi movida de {folder}",
    "packages are missing ({names})": "faltam pacotes ({names})",
    "pyproject.toml or constraints.txt has changed": "pyproject.toml ou constraints.txt mudou",
    "the tests need more packages": "os testes exigem mais pacotes",
    "PyTorch is the build for the CPU, and there is an NVIDIA GPU": (
        "o PyTorch instalado é o de CPU, e há uma GPU NVIDIA"
    ),
    "{venv} must be a virtual environment or not be there, but it is something else; nothing in it was touched. Move"
    " it away and run launch.py again.": (
        "{venv} deve ser um ambiente virtual ou não existir, mas é outra coisa; nada ali foi alterado. Mova-o para"
        " outro lugar e rode launch.py de novo."
    ),
    "Another launch.py is setting up .venv here: waiting for it to finish …": (
        "Outro launch.py está preparando .venv aqui: esperando que termine …"
    ),
    "Making a virtual environment in {venv} …": "Criando um ambiente virtual em {venv} …",
    "Installing LoRA Studio and the other packages (about 250 MB) …": (
        "Instalando o LoRA Studio e os outros pacotes (cerca de 250 MB) …"
    ),
    "Installing PyTorch {pin} (about 3 GB, with CUDA) …": "Instalando o PyTorch {pin} (cerca de 3 GB, com CUDA) …",
    "Installing PyTorch {pin} (about 200 MB) …": "Instalando o PyTorch {pin} (cerca de 200 MB) …",
    "Installing PyTorch {pin} for the CPU (about 200 MB) …": "Instalando o PyTorch {pin} para CPU (cerca de 200 MB) …",
    "Not from pip's own sources: trying download.pytorch.org …": (
        "Não está nas fontes do próprio pip: tentando download.pytorch.org …"
    ),
    "Not from there either: getting PyTorch with several GB of CUDA packages …": (
        "Também não está lá: baixando o PyTorch com vários GB de pacotes CUDA …"
    ),
    "{step} failed: {advice}": "{step} falhou: {advice}",
    "(More in {log})": "(Mais em {log})",
    "Set-up": "A preparação",
    "Making the virtual environment": "A criação do ambiente virtual",
    "Reading pip's configuration": "A leitura da configuração do pip",
    "Removing PyTorch": "A remoção do PyTorch",
    "Installing PyTorch": "A instalação do PyTorch",
    "Installing LoRA Studio": "A instalação do LoRA Studio",
    "Setting up needs about {needed} GB of free disk space, and {place} has {free} GB. Free some and run launch.py"
    " again.": (
        "A preparação precisa de cerca de {needed} GB livres em disco, e {place} tem {free} GB. Libere espaço e rode"
        " launch.py de novo."
    ),
    "the disk is full: {free} GB are left for {root}, and temporary files need room too. Free about 3 GB (with CUDA 8"
    " GB) and run launch.py again.": (
        "o disco está cheio: restam {free} GB para {root}, e os arquivos temporários também precisam de espaço. Libere"
        " cerca de 3 GB (com CUDA, 8 GB) e rode launch.py de novo."
    ),
    "this Python comes without pip. On Debian and Ubuntu, run `sudo apt install python{python}-venv`; elsewhere, get"
    " it from python.org.": (
        "este Python vem sem pip. No Debian e no Ubuntu, rode `sudo apt install python{python}-venv`; em outros"
        " sistemas, baixe-o de python.org."
    ),
    "writing in {root} is not permitted. Make the folder yours, or move it to a place of your own, and run launch.py"
    " again.": (
        "não há permissão para gravar em {root}. Torne-se dono da pasta, ou mova-a para um lugar seu, e rode launch.py"
        " de novo."
    ),
    "pip's configuration has a mistake. Correct the file that is named below, and run launch.py again.": (
        "a configuração do pip tem um erro. Corrija o arquivo indicado abaixo e rode launch.py de novo."
    ),
    "pip cannot use a SOCKS proxy, and ALL_PROXY or another proxy setting names one. Set HTTPS_PROXY to an http://"
    " proxy, or unset ALL_PROXY while you run launch.py.": (
        "o pip não consegue usar um proxy SOCKS, e ALL_PROXY ou outra configuração indica um. Defina HTTPS_PROXY com"
        " um proxy http://, ou remova ALL_PROXY enquanto roda launch.py."
    ),
    "could not reach the package index. Check the network connection (behind a proxy, set HTTPS_PROXY) and run"
    " launch.py again: it continues from here.": (
        "não foi possível acessar o índice de pacotes. Verifique a conexão (atrás de um proxy, defina HTTPS_PROXY) e"
        " rode launch.py de novo: ele continua daqui."
    ),
    "pip is set to ask no package index (no-index), and its other sources lack a package. Unset PIP_NO_INDEX, or"
    " no-index in pip's configuration (`pip config list` shows it), and run launch.py again.": (
        "o pip está configurado para não consultar nenhum índice de pacotes (no-index), e nas outras fontes falta um"
        " pacote. Remova PIP_NO_INDEX, ou no-index da configuração do pip (`pip config list` mostra), e rode launch.py"
        " de novo."
    ),
    "a package has no build for Python {python} on this system ({system}), or pip's sources lack it. Run launch.py"
    " with another Python (3.11 to 3.13), or on a system that PyTorch supports.": (
        "um pacote não tem versão para o Python {python} neste sistema ({system}), ou falta nas fontes do pip. Rode"
        " launch.py com outro Python (3.11 a 3.13), ou num sistema compatível com o PyTorch."
    ),
    "the reason is below. Run launch.py again; if it stops there again, delete .venv first.": (
        "o motivo está abaixo. Rode launch.py de novo; se parar no mesmo ponto, apague .venv antes."
    ),
}
"""By the English sentences."""


def speaks_portuguese() -> bool:
    """Whether STUDIO_LANGUAGE says so, else the system's own language (`pt_BR.UTF-8`)."""
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    system = next((os.environ[name] for name in names if os.environ.get(name)), "")
    tag = os.environ.get("STUDIO_LANGUAGE") or system.partition(".")[0]
    return tag.replace("_", "-").partition("-")[0].lower() == "pt"


def N_(sentence: str) -> str:  # noqa: N802 - gettext's own name
    """Marks a sentence that is made before it is said."""
    return sentence


def _(sentence: str, **values: object) -> str:
    """A sentence in the language of the system, with its values in it."""
    said = PORTUGUESE.get(sentence, sentence) if speaks_portuguese() else sentence
    return said.format(**values) if values else said


def number(value: float, decimals: int) -> str:
    """`3.1`, `3,1`."""
    text = f"{value:.{decimals}f}"
    return text.replace(".", ",") if speaks_portuguese() else text
