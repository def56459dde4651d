#!/usr/bin/perl
# A server in Perl: server.pl SOCKET DIRECTORY. It forks a worker for each connection, which reads and answers blockingly,
# as those of AnyEvent::Task do: setup runs before the first call, all that lies in the socket runs, no word but replies.
# Marks of what has run are lines in the file "marks" of the directory; setup fails while there is a file "broken".
use strict;
use warnings;
use IO::Handle;
use IO::Socket::UNIX;
use JSON::XS;
use POSIX ();
use Time::HiRes ();

my ($path, $directory) = @ARGV;
my $parent = getppid;
$SIG{CHLD} = 'IGNORE';
my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 50) or die "cannot listen at $path: $!";

sub mark {
  open my $file, '>>', "$directory/marks" or die;
  syswrite $file, "@_\n";
}

my ($log, %methods);
%methods = (
  echo => sub { [@_] },
  add => sub { $_[0] + $_[1] },
  pid => sub { $$ },
  mark => sub { mark(@_); scalar @_ },
  error => sub { mark('error'); die "$_[0]\n" },
  where => sub { die "no newline" },
  data => sub { die { code => 4 } },
  sleep => sub { mark('sleep'); Time::HiRes::sleep($_[0]); 1 },
  leave => sub { POSIX::_exit($_[0]) },
  logs => sub {
    $log = { start => 1234567890.5, logs => [[0.25, 20, $_[0], { n => 1 }]], timers => [['disk', 0.1, 0.2]] };
    'logged';
  },
);

sub answer {
  my ($socket, $reply) = @_;
  my $data = encode_json($reply);
  while (length $data) {
    my $sent = syswrite $socket, $data;
    POSIX::_exit(1) unless defined $sent;
    substr($data, 0, $sent) = '';
  }
}

sub work {
  my ($socket) = @_;
  my $json = JSON::XS->new->utf8;
  my $ready;
  while (sysread $socket, my $bytes, 4096) {
    for my $message ($json->incr_parse($bytes)) {
      my ($kind, $meta, @args) = @$message;
      if ($kind eq 'dn') {
        mark('done');
        next;
      }
      undef $log;
      my $value = eval {
        die "no disk\n" if !$ready && -e "$directory/broken";
        $ready = 1;
        my $name = shift @args;
        my $method = $methods{$name} or die "no method $name\n";
        $method->(@args);
      };
      my $error = $@;
      my $told = $log ? { ld => $log } : {};
      $error = "setup exception: $error" unless $ready;
      answer($socket, $error ? ['er', $told, $error] : ['ok', $told, $value]);
    }
  }
  POSIX::_exit(1);
}

mark('serves');
while (getppid == $parent) {
  my $ready = '';
  vec($ready, fileno $listener, 1) = 1;
  next unless select($ready, undef, undef, 1) > 0;
  my $socket = $listener->accept or next;
  my $pid = fork;
  die "cannot fork: $!" unless defined $pid;
  if (!$pid) {
    $SIG{CHLD} = 'DEFAULT';
    close $listener;
    work($socket);
  }
  close $socket;
}
