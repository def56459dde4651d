#!/usr/bin/perl
# A client in Perl: client.pl SOCKET, with the calls as JSON arrays on stdin, one a line. Each line is sent when the one
# before has been answered; with "all" as a second argument all are sent at once. Prints each reply as one line of JSON,
# and "closed" if the worker hangs up before it has replied.
use strict;
use warnings;
use AnyEvent;
use AnyEvent::Handle;
use AnyEvent::Socket;
use JSON::XS;

my ($path, $how) = @ARGV;
my @requests = map { decode_json($_) } <STDIN>;
my $json = JSON::XS->new->utf8->canonical;
my $end = AE::cv;
my ($handle, $owed) = (undef, 0);
$| = 1;

sub finish { print "closed\n" if $owed; $end->send }

sub next_one {
  while (my $request = shift @requests) {
    $handle->push_write(json => $request);
    next if $request->[0] ne 'do';
    $owed++;
    $handle->push_read(json => sub {
      $owed--;
      print $json->encode($_[1]), "\n";
      next_one() unless defined $how;
      $end->send if !$owed && !@requests;
    });
    return unless defined $how;
  }
  $end->send unless $owed;
}

tcp_connect 'unix/', $path, sub {
  my ($socket) = @_ or die "cannot connect to $path: $!";
  $handle = AnyEvent::Handle->new(fh => $socket, on_error => \&finish, on_eof => \&finish);
  next_one();
};
my $late = AE::timer 30, 0, sub { print "too late\n"; $end->send };
$end->recv;
