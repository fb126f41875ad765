#!/usr/bin/python3
"""Tests of scripts/hostmock, run as a program over the real rpmbuild.

  python3 tests/hostmock_test.py [TestClass.test_name...]

They need what scripts/install-deps installs. Expected codes and sentences are those that Mock 6.7 was seen to use.
"""

import functools
import gzip
import http.server
import importlib.machinery
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.dont_write_bytecode = True
TESTS = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = os.path.join(os.path.dirname(TESTS), 'scripts')
HOSTMOCK = os.path.join(SCRIPTS, 'hostmock')
MAKE_SRPM = os.path.join(SCRIPTS, 'make-srpm')

_loader = importlib.machinery.SourceFileLoader('hostmock', HOSTMOCK)
hostmock = importlib.util.module_from_spec(importlib.util.spec_from_loader('hostmock', _loader))
_loader.exec_module(hostmock)

WORK = None  # the folder of the whole test run
SRPMS = None  # its SRPMs


def spec(name, head='', prep='', build='', install='', check='', files='', version='1.0', generate=None):
    """A spec file; sections that are not given are empty."""
    generated = f'%generate_buildrequires\n{generate}\n' if generate is not None else ''
    return (f'Name: {name}\nVersion: {version}\nRelease: 1%{{?dist}}\nSummary: test package {name}\nLicense: MIT\n'
            f'BuildArch: noarch\n{head}\n%description\nA test package.\n%prep\n{prep}\n{generated}%build\n{build}\n'
            f'%install\n{install}\n%check\n{check}\n%files\n{files}\n')


# A build with a child that ignores TERM in a session of its own, found by the words of its command line: %{token}.
STUBBORN = '''
(setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 0.2; done' %{token} >/dev/null 2>&1 </dev/null &)
(env -i sleep 9876 &)
i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo "tick $i"; sleep 0.1; done
'''

SPECS = {
    'fails-prep': spec('fails-prep', prep='exit 3'),
    'fails-build': spec('fails-build', build='exit 3'),
    'fails-install': spec('fails-install', install='exit 3'),
    'fails-check': spec('fails-check', check='exit 3'),
    'fails-files': spec('fails-files', files='/usr/share/not-there'),
    'fails-generate': spec('fails-generate', generate='exit 3'),
    'wants-newer': spec('wants-newer', head='BuildRequires: gcc >= 99'),
    'wants-generated': spec('wants-generated', generate='echo "python3dist(nowhere)"'),
    'gets-generated': spec('gets-generated', generate='echo "greeting-macros >= 2"', build='test "%{greeting}" = hello'),
    'greeting-macros': spec(
        'greeting-macros', version='2.0', files='/usr/lib/rpm/macros.d/macros.greeting',
        install='mkdir -p %{buildroot}/usr/lib/rpm/macros.d\n'
                'echo "%%greeting hello" > %{buildroot}/usr/lib/rpm/macros.d/macros.greeting'),
    'broken-req': spec('broken-req', head='Requires: libnowhere.so.9', files=''),
    'wants-broken': spec('wants-broken', head='BuildRequires: broken-req'),
    'wants-either': spec('wants-either', head='BuildRequires: (nowhere-at-all or make)\nBuildRequires: (gcc if make)'),
    'wants-neither': spec('wants-neither', head='BuildRequires: (nowhere-at-all or nor-there)'),
    'stubborn': spec('stubborn', build=STUBBORN),
    'leaves-readonly': spec('leaves-readonly', build='mkdir -p a/b/c && touch a/b/c/d && ln -s /etc/passwd a/b/e\n'
                                                     'chmod 000 a/b/c && chmod 555 a/b a'),
    'shows-env': spec('shows-env', build='env', check='exit 9'),
}


def setUpModule():
    global WORK, SRPMS
    # A shell has what it puts in the background ignore these, and nohup; what is started here would inherit it.
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    WORK = tempfile.mkdtemp(prefix='hostmock-test-')
    SRPMS = os.path.join(WORK, 'srpms')
    specs = os.path.join(WORK, 'specs')
    os.mkdir(specs)
    for name, text in SPECS.items():
        with open(os.path.join(specs, name + '.spec'), 'w', encoding='utf-8') as file:
            file.write(text)
    ours = os.path.join(TESTS, 'specs')
    paths = [os.path.join(folder, name) for folder in (specs, ours) for name in sorted(os.listdir(folder))]
    subprocess.run([MAKE_SRPM, *(path for path in paths if path.endswith('.spec')), '-o', SRPMS, '-D', 'megabytes 2'],
                   check=True, stdout=subprocess.DEVNULL)


def tearDownModule():
    shutil.rmtree(WORK, ignore_errors=True)


def srpm(name):
    """The path of the SRPM of that package."""
    found = [file for file in os.listdir(SRPMS) if file.rsplit('-', 2)[0] == name]
    assert len(found) == 1, (name, found)
    return os.path.join(SRPMS, found[0])


def wait_for(condition, what, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f'waited {seconds} s for {what}')
        time.sleep(0.005)


def processes_with(word):
    """The pids whose command line has that word."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/cmdline', 'rb') as file:
                if word.encode() in file.read().split(b'\0'):
                    found.append(int(pid))
        except OSError:
            pass
    return found


class Case(unittest.TestCase):
    """A folder of its own with a config `here`, roots and a result directory."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(dir=WORK)
        self.result = os.path.join(self.dir, 'result')
        self.base = os.path.join(self.dir, 'roots')
        self.configs = os.path.join(self.dir, 'configs')
        os.mkdir(self.configs)
        self.write_config('here', "config_opts['target_arch'] = %r\nconfig_opts['dist'] = '.t7'\n" % os.uname().machine)

    def write_config(self, name, text):
        path = os.path.join(self.configs, name + '.cfg')
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
        return path

    def start(self, *args, root='here', **options):
        env = {'PATH': '/usr/bin:/bin', 'HOME': self.dir, 'HOSTMOCK_BASEDIR': self.base, 'HOSTMOCK_CONFIG_DIR': self.configs,
               'FARM_PASSWORD': 'hunter2'}
        command = [HOSTMOCK, '-r', root, *([f'--resultdir={self.result}'] if 'result' not in options else []), *args]
        options.pop('result', None)
        self.stderr = os.path.join(self.dir, 'stderr')
        with open(self.stderr, 'w', encoding='utf-8') as err:
            process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, **options)
        self.addCleanup(self.finish, process)
        return process

    @staticmethod
    def finish(process):
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()

    def run_hostmock(self, *args, **options):
        """Runs to the end; the exit code. stdout must stay empty, as with Mock."""
        process = self.start(*args, **options)
        self.assertEqual(process.stdout.read(), b'')
        return process.wait()

    def read(self, name):
        path = self.stderr if name == 'stderr' else os.path.join(self.result, name)
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.read()

    def states(self):
        """state.log without its time stamps, whose form is checked."""
        lines = self.read('state.log').splitlines()
        for line in lines:
            self.assertRegex(line, r'^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - ')
        return [line[26:] for line in lines]

    def results(self):
        return sorted(os.listdir(self.result)) if os.path.isdir(self.result) else []

    def assert_ends(self, code, *args, **options):
        got = self.run_hostmock(*args, **options)
        self.assertEqual(got, code, self.read('stderr'))

    def assert_in_logs(self, line, *logs):
        """The text is the end of a line of each log."""
        for log in logs:
            self.assertRegex(self.read(log), re.compile('(^|  )' + re.escape(line) + '$', re.M), log)

    def make_repo(self, *names):
        """A repository with the RPMs of these packages."""
        folder = os.path.join(self.dir, 'repo')
        for name in names:
            self.assert_ends(0, '--resultdir', folder, srpm(name), result=None)
        for log in [name for name in os.listdir(folder) if name.endswith('.log')]:
            os.unlink(os.path.join(folder, log))
        subprocess.run(['createrepo_c', '-q', folder], check=True)
        return folder


LOGS = ['build.log', 'hw_info.log', 'installed_pkgs.log', 'root.log', 'state.log']


class Success(Case):
    def test_results_and_phases_are_mocks(self):
        self.assert_ends(0, srpm('hello-moji'))
        arch = os.uname().machine
        self.assertEqual(self.results(), sorted(
            [*LOGS, f'hello-moji-1.2-1.t7.{arch}.rpm', 'hello-moji-1.2-1.t7.src.rpm']))
        name = 'hello-moji-1.2-1.src.rpm'
        self.assertEqual(self.states(), [
            'Mock Version: 6.7', 'Start: chroot init', 'Start: dnf4 update', 'Finish: dnf4 update', 'Finish: chroot init',
            f'Start: build phase for {name}', f'Start: build setup for {name}', f'Finish: build setup for {name}',
            f'Start: rpmbuild {name}', 'Start: Outputting list of installed packages',
            'Finish: Outputting list of installed packages', f'Finish: rpmbuild {name}', f'Finish: build phase for {name}',
            'Start: clean chroot', 'Finish: clean chroot', 'Finish: run'])
        self.assertIn('WARNING: hostmock isolates nothing', self.read('stderr'))
        self.assertRegex(self.read('root.log'), r'(?m)^WARNING hostmock:\d+:  hostmock isolates nothing')
        self.assertEqual(self.read('build.log').count('\nExecuting command: ['), 2)
        self.assertTrue(self.read('build.log').endswith('\nChild return code was: 0\n'))
        self.assertFalse(os.path.exists(os.path.join(self.base, 'here', 'root')), 'the root is cleaned')

    def test_logs_are_appended_and_old_rpms_stay(self):
        self.assert_ends(0, srpm('moji-data'))
        self.assert_ends(1, srpm('fails-build'))
        self.assertEqual(self.states().count('Mock Version: 6.7'), 2)
        self.assertIn('moji-data-2011.11-3.t7.noarch.rpm', self.results())

    def test_two_roots_at_once(self):
        runs = [self.start(f'--uniqueext={slot}', '--resultdir', os.path.join(self.dir, slot), srpm('moji-data'), result=None)
                for slot in ('slot-1', 'slot-2')]
        self.assertEqual([run.wait() for run in runs], [0, 0])

    def test_options_take_effect(self):
        self.assert_ends(0, '--nocheck', '-D', 'dist .other', srpm('shows-env'))
        self.assertIn('shows-env-1.0-1.other.src.rpm', self.results())

    def test_the_environment_of_the_caller_stays_outside(self):
        self.assert_ends(1, srpm('shows-env'))
        self.assertIn(f'HOME={self.base}/here/root/builddir', self.read('build.log'))
        self.assertNotIn('hunter2', self.read('build.log') + self.read('root.log'))

    def test_a_flood_of_log_arrives_whole(self):
        self.assert_ends(0, srpm('moji-chatter'))
        self.assertGreater(os.path.getsize(os.path.join(self.result, 'build.log')), 2 << 20)

    @unittest.skipUnless(os.geteuid() == 0, 'is an ordinary user already')
    def test_an_ordinary_user_can_build(self):
        with tempfile.TemporaryDirectory() as outside:
            os.chmod(outside, 0o755)
            program = shutil.copy(HOSTMOCK, outside)
            packages = [shutil.copy(srpm(name), outside) for name in ('moji-data', 'leaves-readonly')]
            config = shutil.copy(os.path.join(self.configs, 'here.cfg'), outside)
            home = os.path.join(outside, 'home')
            os.mkdir(home)
            os.chown(home, 65534, 65534)
            done = subprocess.run([program, '-r', config, '--resultdir', f'{home}/result', *packages], check=False,
                                  env={'PATH': '/usr/bin:/bin', 'HOME': home}, cwd='/', user=65534, group=65534,
                                  extra_groups=[], stderr=subprocess.PIPE)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(os.listdir(f'{home}/.cache/hostmock/here'), ['buildroot.lock'], 'the root is cleaned')


class FailedBuild(Case):
    def test_a_section_fails(self):
        for section in ('prep', 'build', 'install', 'check'):
            with self.subTest(section):
                shutil.rmtree(self.result, ignore_errors=True)
                self.assert_ends(1, srpm(f'fails-{section}'))
                self.assertRegex(self.read('build.log'), rf'(?m)^error: Bad exit status from \S+ \(%{section}\)$')
                self.assertTrue(self.read('build.log').endswith('\nChild return code was: 1\n'))
                self.assertIn(f'Start: rpmbuild fails-{section}-1.0-1.src.rpm', self.states())
                self.assertEqual(self.states()[-1], 'Finish: clean chroot')
                self.assertIn('ERROR: Command failed: \n # bash -c ', self.read('stderr'))
                self.assertEqual(self.results(), LOGS)

    def test_a_packaged_file_is_missing(self):
        self.assert_ends(1, srpm('fails-files'))
        self.assertIn('File not found: ', self.read('build.log'))

    def test_the_compiler_says_why(self):
        self.assert_ends(1, srpm('moji-typo'))
        self.assertIn("error: 'greeting' undeclared", self.read('build.log').replace('\u2018', "'").replace('\u2019', "'"))

    def test_the_spec_does_not_parse(self):
        self.assert_ends(1, srpm('moji-garbled'))
        self.assertFalse([line for line in self.states() if line.startswith('Start: rpmbuild')])
        self.assertIn('error: moji-garbled was never ported to .t7', self.read('build.log'))
        self.assertNotIn('installed_pkgs.log', self.results())

    def test_generating_requirements_fails(self):
        self.assert_ends(10, srpm('fails-generate'))
        self.assertIn('(%generate_buildrequires)', self.read('build.log'))

    def test_results_cannot_be_copied(self):
        os.makedirs(os.path.join(self.result, 'moji-data-2011.11-3.t7.noarch.rpm', 'in-the-way'))
        os.makedirs(os.path.join(self.result, 'moji-data-2011.11-3.t7.noarch.rpm', 'moji-data-2011.11-3.t7.noarch.rpm'))
        self.assert_ends(1, srpm('moji-data'))
        self.assertRegex(self.read('stderr'), r'ERROR: Can not copy \S+ into resultdir ')

    def test_timeout(self):
        self.assert_ends(11, '--rpmbuild_timeout=1', '-D', f'token timeout{os.getpid()}', srpm('stubborn'))
        self.assertIn('ERROR: Timeout(1) expired for command:\n # bash -c ', self.read('stderr'))
        self.assertEqual(processes_with(f'timeout{os.getpid()}'), [])


class BuildRequires(Case):
    def test_missing(self):
        self.assert_ends(30, srpm('moji-orphan'))
        for line in ("No matching package to install: 'pkgconfig(libunheard-of) >= 2.0'",
                     "No matching package to install: 'unheard-of-tools'",
                     'Not all dependencies satisfied', 'Error: Some packages could not be found.'):
            self.assert_in_logs(line, 'stderr', 'root.log')
        self.assertFalse([line for line in self.states() if line.startswith('Start: rpmbuild')])
        self.assertEqual(self.results(), ['build.log', 'hw_info.log', 'root.log', 'state.log'])

    def test_too_old(self):
        self.assert_ends(30, srpm('wants-newer'))
        self.assert_in_logs("No matching package to install: 'gcc >= 99'", 'stderr', 'root.log')

    def test_generated_and_missing(self):
        self.assert_ends(30, srpm('wants-generated'))
        self.assert_in_logs("No matching package to install: 'python3dist(nowhere)'", 'stderr', 'root.log')
        self.assert_in_logs('Child return code was: 11', 'build.log')
        self.assertIn('Start: rpmbuild wants-generated-1.0-1.src.rpm', self.states())

    def test_generated_and_there_with_its_macros(self):
        repo = self.make_repo('greeting-macros')
        self.assert_ends(0, f'--addrepo=file://{repo}', srpm('gets-generated'))
        self.assertIn('greeting-macros-2.0-1.t7.noarch', self.read('installed_pkgs.log'))
        tags, _ = hostmock.read_package(os.path.join(self.result, 'gets-generated-1.0-1.t7.src.rpm'))
        self.assertIn('greeting-macros >= 2', hostmock.requires_of(tags))

    def test_rich(self):
        self.assert_ends(0, srpm('wants-either'))
        self.assert_ends(30, srpm('wants-neither'))
        self.assert_in_logs("No matching package to install: '(nowhere-at-all or nor-there)'", 'stderr', 'root.log')

    def test_from_a_repository_and_used(self):
        """The header, the library and the .pc file of another package of the farm, from a file and from a web server."""
        self.assert_ends(30, srpm('moji-count'))
        repo = self.make_repo('libmoji-demo')
        handler = functools.partial(QuietHandler, directory=repo)
        with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            for url in (f'file://{repo}', f'http://127.0.0.1:{server.server_port}/'):
                with self.subTest(url):
                    shutil.rmtree(self.result, ignore_errors=True)
                    self.assert_ends(0, '--addrepo', url, srpm('moji-count'))
                    self.assertIn(f'moji-count-0.4-1.t7.{os.uname().machine}.rpm', self.results())
                    self.assertIn('libmoji-demo-devel-3.1-2.t7', self.read('installed_pkgs.log'))
            server.shutdown()

    def test_there_but_not_installable(self):
        repo = self.make_repo('broken-req')
        self.assert_ends(30, f'--addrepo=file://{repo}', srpm('wants-broken'))
        self.assert_in_logs('  - nothing provides libnowhere.so.9 needed by broken-req-1.0-1.t7.noarch', 'stderr', 'root.log')
        self.assertNotIn('No matching package', self.read('root.log'))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args):
        pass


class Repository(Case):
    def metadata_failed(self, url):
        self.assert_ends(30, '--addrepo', url, srpm('moji-data'))
        self.assertEqual(self.read('build.log'), 'Mock Version: 6.7\n')
        self.assertNotIn('Finish: dnf4 update', self.states())
        self.assertNotIn('No matching package', self.read('root.log'))
        return self.read('root.log')

    def test_web_server_unreachable(self):
        log = self.metadata_failed('http://127.0.0.1:1/nope')
        self.assertIn("Errors during downloading metadata for repository '1270011_nope':", log)
        self.assertIn("  Error: Failed to download metadata for repo '1270011_nope': Cannot download repomd.xml: "
                      'Cannot download repodata/repomd.xml: All mirrors were tried', log)

    def test_folder_missing(self):
        log = self.metadata_failed(f'file://{self.dir}/nowhere')
        self.assertIn(f"Curl error (37): Couldn't read a file:// file for file://{self.dir}/nowhere/repodata/repomd.xml", log)

    def test_metadata_do_not_match_their_checksum(self):
        repo = self.make_repo('moji-data')
        primary = next(name for name in os.listdir(f'{repo}/repodata') if name.endswith('primary.xml.gz'))
        with gzip.open(f'{repo}/repodata/{primary}', 'ab') as file:
            file.write(b' ')
        shutil.rmtree(self.result, ignore_errors=True)
        log = self.metadata_failed(f'file://{repo}')
        self.assertIn("Downloading successful, but checksum doesn't match.", log)
        self.assertIn('Failed to download metadata for repo', log)

    def test_an_rpm_is_not_the_one_of_the_metadata(self):
        repo = self.make_repo('libmoji-demo')
        devel = next(name for name in os.listdir(repo) if name.startswith('libmoji-demo-devel'))
        for damage in (lambda path: open(path, 'ab').close() or os.truncate(path, 5000), os.unlink):
            damage(os.path.join(repo, devel))
            self.assert_ends(30, f'--addrepo=file://{repo}', srpm('moji-count'))
            self.assertRegex(self.read('root.log'), r'Package "libmoji-demo-devel\S+" from local repository "\S+" has '
                             'incorrect checksum')
            self.assert_in_logs('Error: Some packages from local repository have incorrect checksum', 'stderr')


class Refused(Case):
    """Ends before there is a result directory, or with nothing in it."""

    def assert_refused(self, code, sentence, *args, **options):
        self.assert_ends(code, *args, **options)
        self.assertIn(sentence, self.read('stderr'))
        self.assertEqual(self.results(), [])

    def test_config_missing(self):
        self.assert_refused(3, f'ERROR: Could not find required config file: {self.configs}/absent.cfg\n', srpm('moji-data'),
                            root='absent')
        self.assertIn("ERROR: Non-existing Mock config 'absent'\n", self.read('stderr'))

    def test_config_broken(self):
        path = self.write_config('broken', 'config_opts[\n')
        self.assert_refused(3, f'ERROR: Config error: {path}: ', srpm('moji-data'), root='broken')

    def test_config_is_not_executed(self):
        trap = os.path.join(self.dir, 'executed')
        self.write_config('trap', f"import os\nos.mkdir({trap!r})\nconfig_opts['dist'] = os.mkdir({trap!r})\n"
                                  "include('templates/x.tpl')\nconfig_opts['description'] = 'kept'\n")
        self.assert_ends(0, srpm('moji-data'), root='trap')
        self.assertFalse(os.path.exists(trap))
        self.assertIn('moji-data-2011.11-3.hm.src.rpm', self.results())

    def test_srpm_missing(self):
        self.assert_refused(1, 'ERROR: Cannot find/open srpm: absent.src.rpm. Error: ', 'absent.src.rpm')

    def test_srpm_truncated(self):
        path = os.path.join(self.dir, 'short.src.rpm')
        for size in (0, 50, 1000, 3000):
            shutil.copy(srpm('moji-data'), path)
            os.truncate(path, size)
            self.assert_refused(1, f'ERROR: Cannot find/open srpm: {path}. Error: error reading package header\n', path)

    def test_srpm_without_its_end(self):
        path = shutil.copy(srpm('moji-data'), os.path.join(self.dir, 'cut.src.rpm'))
        os.truncate(path, os.path.getsize(path) - 20)
        self.assert_ends(40, path)
        self.assertIn('ERROR: Source RPM is not installable:\n', self.read('stderr'))

    def test_binary_rpm(self):
        repo = self.make_repo('moji-data')
        path = os.path.join(repo, 'moji-data-2011.11-3.t7.noarch.rpm')
        self.assert_refused(1, f'ERROR: File is not an srpm: {path}.', path)

    def test_bad_command_lines(self):
        self.assert_refused(1, "hostmock knows no option '--bogus'", '--bogus', srpm('moji-data'))
        self.assert_refused(50, 'No package specified to rebuild command.')
        for option in ('--rpmbuild_timeout=soon', '--isolation=perfect', '--uniqueext=../x', '--define=lonely', '--config-opts=x'):
            self.assert_refused(5, option.partition('=')[2].replace('lonely', "'--define' (lonely)"), option, srpm('moji-data'))

    def test_result_directory_cannot_be_made(self):
        blocked = os.path.join(self.dir, 'file')
        open(blocked, 'w', encoding='utf-8').close()
        self.assert_refused(70, 'Could not create output directory for built rpms.', f'--resultdir={blocked}/result',
                            srpm('moji-data'), result=None)

    def test_version_and_lists(self):
        for args, expected in ((['--version'], '6.7\nhostmock: '), (['--list-chroots'], 'here'),
                               (['-r', 'here', '--debug-config'], "config_opts['dist'] = '.t7'"), (['--help'], '--addrepo')):
            done = subprocess.run([HOSTMOCK, *args], check=True, stdout=subprocess.PIPE, text=True,
                                  env={'HOME': self.dir, 'HOSTMOCK_CONFIG_DIR': self.configs})
            self.assertIn(expected, done.stdout)


class Interrupted(Case):
    """A build with a child that ignores TERM: whatever ends it, nothing of it may live on."""

    def setUp(self):
        super().setUp()
        self.token = f'token-{os.getpid()}-{time.monotonic_ns()}'
        self.root = os.path.join(self.base, 'here-slot')
        self.addCleanup(self.kill_rest)

    def kill_rest(self):
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)

    def alive(self):
        return sorted({*processes_with(self.token), *hostmock.processes_of(self.root)})

    def start_stubborn(self):
        process = self.start('--uniqueext=slot', '-D', f'token {self.token}', srpm('stubborn'))
        path = os.path.join(self.result, 'build.log')
        wait_for(lambda: os.path.exists(path) and '\ntick 2\n' in self.read('build.log'), 'the build to tick')
        self.assertTrue(processes_with(self.token))
        return process

    def rpmbuild(self):
        return next(pid for pid in processes_with('-bb') if pid in hostmock.processes_of(self.root))

    def test_term_and_hup(self):
        for number, code in ((signal.SIGTERM, 143), (signal.SIGHUP, 129)):
            with self.subTest(number.name):
                shutil.rmtree(self.result, ignore_errors=True)
                process = self.start_stubborn()
                began = time.monotonic()
                process.send_signal(number)
                self.assertEqual(process.wait(), code)
                self.assertLess(time.monotonic() - began, 10)  # 0.3 s on an idle machine; it ticks for a minute
                self.assertEqual(self.alive(), [])
                self.assertIn(f'Received signal {number.name} activating orphansKill', self.read('stderr'))
                self.assertRegex(self.read('stderr'), r'WARNING: Leftover process \d+ is being killed with signal 9: sh -c ')
                self.assertEqual(self.states()[-1], 'Finish: build phase for stubborn-1.0-1.src.rpm')
                self.assertTrue(os.path.isdir(os.path.join(self.root, 'root')), 'left for the next run, as with Mock')

    def test_int(self):
        process = self.start_stubborn()
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(), 7)
        self.assertEqual(self.alive(), [])
        self.assertTrue(self.read('stderr').endswith('ERROR: Exiting on user interrupt, <CTRL>-C\n'))
        self.assertFalse(os.path.exists(os.path.join(self.root, 'root')))

    def test_kill_leaves_rpmbuild_to_the_next_run(self):
        process = self.start_stubborn()
        process.kill()
        process.wait()
        self.assertTrue(self.alive())
        self.assert_ends(0, '--uniqueext=slot', srpm('moji-data'))
        self.assertEqual(self.alive(), [])

    def test_orphanskill_from_outside(self):
        process = self.start_stubborn()
        log = self.stderr
        self.assert_ends(0, '--orphanskill', result=None)  # another root: nothing happens
        self.assertTrue(self.alive())
        self.assert_ends(0, '--uniqueext=slot', '--orphanskill', result=None)
        self.assertEqual(process.wait(), 241)
        self.assertEqual(self.alive(), [])
        self.stderr = log
        self.assert_in_logs('Child return code was: -15', 'build.log')

    def test_rpmbuild_is_killed(self):
        process = self.start_stubborn()
        os.kill(self.rpmbuild(), signal.SIGKILL)
        self.assertEqual(process.wait(), 247)
        self.assert_in_logs('Child return code was: -9', 'build.log')
        self.assertEqual(self.alive(), [])

    def test_a_root_in_use_is_refused_at_once(self):
        process = self.start_stubborn()
        other = os.path.join(self.dir, 'other')
        self.assert_ends(60, '--uniqueext=slot', '--resultdir', other, srpm('moji-data'), result=None)
        self.assertTrue(self.read('stderr').endswith('ERROR: Build root is locked by another process.\n'))
        self.assertFalse(os.path.exists(other))
        self.assert_ends(60, '--uniqueext=slot', '--clean')
        self.assertIsNone(process.poll(), 'the build goes on')
        process.terminate()
        process.wait()
        self.assert_ends(0, '--uniqueext=slot', '--clean')
        self.assertFalse(os.path.exists(self.root))


class Versions(unittest.TestCase):
    def test_rpmvercmp(self):
        table = '''
            1.0 = 1.0; 1.0 < 2.0; 2.0.1 < 2.0.1a; 5.5p1 < 5.5p2; 5.5p1 < 5.5p10; 10xyz < 10.1xyz; xyz10 < xyz10.1; xyz.4 < 8
            xyz.4 < 2; 5.5p2 < 5.6p1; 5.6p1 < 6.5p1; 6.0 < 6.0.rc1; 10a2 < 10b2; 1.0aa = 1.0aa; 1.0a < 1.0aa; 10.0001 = 10.1
            10.0001 < 10.0039; 4.999.9 < 5.0; 20101121 < 20101122; 2_0 = 2.0; 2_0 = 2_0; a+ = a_; +a = _a; +_ = _+; a = a+
            1.0~rc1 < 1.0; 1.0~rc1 < 1.0~rc2; 1.0~rc1~git123 < 1.0~rc1; 1.0 < 1.0^; 1.0^git1 < 1.0^git2; 1.0^git1 < 1.01
            1.0^20160101 < 1.0.1; 1.0^20160101^git1 = 1.0^20160101^git1; 1.0^20160101 < 1.0^20160101^git1; 1.0~rc1 < 1.0~rc1^git1
            1.0~rc1^git1 < 1.0; 1.0^git1~pre < 1.0^git1; 007 = 7; 1.0. = 1.0; 12345678901234567890 < 12345678901234567891'''
        for entry in re.split(r'[;\n]\s*', table.strip()):
            left, sign, right = entry.split()
            order = {'<': -1, '=': 0}[sign]
            self.assertEqual(hostmock.rpmvercmp(left, right), order, entry)
            self.assertEqual(hostmock.rpmvercmp(right, left), -order, entry)

    def test_ranges(self):
        for provided, wanted, met in (
                ('= 1.0-1', '>= 1.0', True), ('= 1.0-1', '> 1.0', False), ('= 1:0.5-1', '>= 1.0', True), ('= 0.9', '< 1.0', True),
                ('= 1.0-1', '= 1.0-2', False), ('= 1.0-1', '= 1.0', True), ('', '>= 1', False), ('', '', True),
                ('= 2.0~rc1-1', '>= 2.0', False), ('>= 3', '= 5', True), ('<= 3', '> 3', False), ('< 3', '< 2', True)):
            pair = [tuple(text.split()) or ('', '') for text in (provided, wanted)]
            self.assertEqual(hostmock.overlaps(*pair), met, (provided, wanted))

    def test_rich(self):
        self.assertEqual(hostmock.parse_rich('(pkgconfig(x) >= 1:2 or (b and libc.so.6(G)(64bit)))'),
                         ('or', 'pkgconfig(x) >= 1:2', ('and', 'b', 'libc.so.6(G)(64bit)')))
        self.assertEqual(hostmock.parse_rich('(a if b else c)'), ('if', 'a', 'b', 'c'))
        for text in ('(a', '(a or', '(a nor b)', '()'):
            with self.assertRaises(hostmock.Error):
                hostmock.parse_rich(text)


if __name__ == '__main__':
    unittest.main()
